package unit

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		want     Unit
	}{
		{"scope", "system.slice:runc:x", Unit{"runc-x.scope", "system.slice", "/system.slice/runc-x.scope"}},
		{"no slice", ":runc:x", Unit{"runc-x.scope", "system.slice", "/system.slice/runc-x.scope"}},
		{"root slice", "-:runc:x", Unit{"runc-x.scope", "-.slice", "/runc-x.scope"}},
		{"no prefix", "a.slice::x", Unit{"x.scope", "a.slice", "/a.slice/x.scope"}},
		{"whole name", "a.slice::cri-x.scope", Unit{"cri-x.scope", "a.slice", "/a.slice/cri-x.scope"}},
		{
			"as kubelet has it", "kubepods-burstable-podab_cd.slice:cri-mini:0f1",
			Unit{"cri-mini-0f1.scope", "kubepods-burstable-podab_cd.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab_cd.slice/cri-mini-0f1.scope"},
		},
		{"slice", "cri_mini-podx.slice", Unit{"cri_mini-podx.slice", "cri_mini.slice", "/cri_mini.slice/cri_mini-podx.slice"}},
		{"slice at the root", "a.slice", Unit{"a.slice", "-.slice", "/a.slice"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
			if again, err := Parse(got.String()); err != nil || again != got {
				t.Errorf("String %q is %+v, %v", got, again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, in, says string }{
		{"a path", "/kubepods/x", "form slice:prefix:name"},
		{"two parts", "a.slice:x", "form slice:prefix:name"},
		{"four parts", "a.slice:b:c:d", "form slice:prefix:name"},
		{"no name", "a.slice:b:", "no name"},
		{"not a slice", "kubepods:b:c", "does not end in .slice"},
		{"only the ending", ".slice:b:c", "does not end in .slice"},
		{"a path of slices", "a.slice/a-b.slice:b:c", `character '/'`},
		{"empty part", "a--b.slice:b:c", "dashes is empty"},
		{"dash first", "-a.slice:b:c", "dashes is empty"},
		{"dash last", "a-.slice:b:c", "dashes is empty"},
		{"blank in the name", "a.slice:b:c d", `character ' '`},
		{"the way up", "a.slice:b:../c", `character '/'`},
		{"too long", "a.slice:b:" + strings.Repeat("x", 300), "longer than"},
		{"the root as a unit", "-.slice", "nobody's own"},
		{"nothing", "", "form slice:prefix:name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := Parse(tt.in); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%+v, %v; want %q", got, err, tt.says)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a-b.slice:p:n", ":p:n", "-::n", "a-b.slice", "a.slice::x.scope", "-.slice:x:y.slice"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		if !strings.HasPrefix(u.Path, "/") || strings.Contains(u.Path, "..") && !strings.Contains(s, "..") || strings.Contains(u.Name, "/") {
			t.Errorf("%q is %+v", s, u)
		}
		if again, err := Parse(u.String()); u.Scope() && (err != nil || again != u) {
			t.Errorf("%q is %+v, and its String %+v, %v", s, u, again, err)
		}
	})
}
