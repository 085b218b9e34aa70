package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// TestResctrl: which groups are made, checked and written to. No processor here has classes of service, so the file
// system is a directory with the files that the kernel would put into it.
func TestResctrl(t *testing.T) {
	const schemata = "    L3:0=7ff;1=01f\n    MB:0= 20;1= 70\n"
	for _, tc := range []struct {
		name    string
		there   bool
		makes   uint64
		lines   []string
		monitor bool
		words   string // of the error
		intends int
	}{
		{"own", false, plan.ResctrlOwn, nil, false, "", 1},
		{"own and monitored", false, plan.ResctrlOwn, nil, true, "", 2},
		{"shared, new", false, plan.ResctrlShared, nil, false, "", 0},
		{"shared, the same", true, plan.ResctrlShared, []string{"L3:1=1f", "MB:0=20;1=70"}, false, "", 0},
		{"shared, others", true, plan.ResctrlShared, []string{"L3:1=3f"}, false, `the group is there with other schemata: L3:1 is "1f", want "3f"`, 0},
		{"shared, no such domain", true, plan.ResctrlShared, []string{"L3:7=1f"}, false, `L3:7 is "", want "1f"`, 0},
		{"given", true, plan.ResctrlGiven, nil, false, "", 0},
		{"given and monitored", true, plan.ResctrlGiven, nil, true, "", 1},
		{"given, not there", false, plan.ResctrlGiven, nil, false, "the group must be there", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			group := filepath.Join(t.TempDir(), "group")
			monitor := ""
			if tc.monitor {
				monitor = filepath.Join(group, "mon")
			}
			if tc.there {
				if err := os.Mkdir(group, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(group, "schemata"), []byte(schemata), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var j intents
			op := plan.PrepareResctrl(group, monitor, tc.lines, tc.makes)
			err := (&run{journal: &j}).resctrl(&op)
			if tc.words == "" && err != nil || tc.words != "" && (err == nil || !strings.Contains(err.Error(), tc.words)) {
				t.Fatalf("%v, want %q", err, tc.words)
			}
			if len(j) != tc.intends {
				t.Errorf("intended %v", j)
			}
			if err != nil {
				return
			}
			for _, dir := range []string{group, monitor} {
				if st, err := os.Stat(dir); dir != "" && (err != nil || !st.IsDir()) {
					t.Errorf("%s: %v", dir, err)
				}
			}
			for i := len(j) - 1; i >= 0; i-- {
				for range 2 { // a release may be repeated
					if err := removeResctrl(j[i].Name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// TestResctrlSchemata: each line is a write of its own, in order.
func TestResctrlSchemata(t *testing.T) {
	group := t.TempDir()
	file := filepath.Join(group, "schemata")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeSchema(group, "L3:0=7f0;1=1f"); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(file); string(text) != "L3:0=7f0;1=1f\n" {
		t.Errorf("%q", text)
	}
	if err := os.Mkdir(filepath.Join(group, "info"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(group, "info/last_cmd_status"), []byte("Mask out of range\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := resctrlError(filepath.Join(group, "x"), os.ErrInvalid); !strings.Contains(err.Error(), "(Mask out of range)") {
		t.Error(err)
	}
}

// intents is a journal in memory.
type intents []plan.Object

func (j *intents) Intend(o plan.Object) error { *j = append(*j, o); return nil }

func (j *intents) Note(string, string, any) error { return nil }
