package plan

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() *Plan {
	p := New()
	tree, root, cg := p.NewSlot("rootfs"), p.NewSlot("root"), p.NewSlot("cgroup memory")
	umask := uint32(0o027)
	p.Add(
		MakeCgroup("/kubepods/x", []byte(`{"pids":{"limit":5}}`)),
		Open(cg, "/sys/fs/cgroup/memory/kubepods/x/tasks", OpenWrite, InHost),
		MakeOverlay(tree, Overlay{Lower: []string{"/l/1", "/l/2"}, Upper: "/u", Work: "/w", UserNS: NoSlot}),
		MakeProcess(NewNS|NewPID),
		SetPropagation("/", PropSlave|PropRec),
		PlaceRoot(tree, root, "/run/cri-mini/root"),
		NewMount(root, FS{Type: "tmpfs", Target: "/dev", Source: "tmpfs", Options: []string{"mode", "755", "size", "65536k", "ro", ""}, Attrs: AttrNosuid, Create: CreateDir}),
		Meet("console", ParentWaits, root, 1),
		SetUser(1000, 100, []uint32{5, 70000}, &umask),
		LoadSeccomp(NoSlot, "default", []byte{1, 2, 3, 4, 5, 6, 7, 8}, 0),
		JoinCgroup(cg, "memory"),
		Execute([]string{"/bin/sh", "/usr/bin/sh"}, []string{"sh", "-c", ""}, []string{"A=b"}, 0),
	)
	return p
}

func TestEncodeDecode(t *testing.T) {
	p := sample()
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	var want []Op
	for _, o := range p.Ops {
		if o.Side != Parent {
			want = append(want, o)
		}
	}
	if d := cmp.Diff(want, got.Ops); d != "" {
		t.Errorf("decoded ops differ (-want +got):\n%s", d)
	}
	if got.Index[0] != 4 || got.Index[len(got.Index)-1] != len(p.Ops)-1 {
		t.Errorf("indices %v are not the places in the whole plan", got.Index)
	}
}

func TestTextNamesEverySide(t *testing.T) {
	text := sample().String()
	for _, want := range []string{"  0 parent cgroup_create", "  6 init   mount ", "  7 both   barrier", "options=[mode 755 size 65536k ro \"\"]", "attrs=nosuid", "groups=[5 70000]"} {
		if !strings.Contains(text, want) {
			t.Errorf("text form lacks %q:\n%s", want, text)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(p *Plan)
		want string
	}{
		{"slot never filled", func(p *Plan) { p.Add(JoinNS(p.NewSlot("ns"), NewNet)) }, "before it is filled"},
		{"slot out of range", func(p *Plan) { p.Add(JoinNS(99, NewNet)) }, "does not exist"},
		{"two clones", func(p *Plan) { p.Add(MakeProcess(0), MakeProcess(0)) }, "at most one"},
		{"wrong side", func(p *Plan) { o := MakeProcess(0); o.Side = Init; p.Add(o) }, "cannot run on the init side"},
		{"unknown kind", func(p *Plan) { p.Add(Op{Kind: 999, Side: Init}) }, "unknown kind"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := New()
			tc.make(p)
			if err := p.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Check() = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestEncodeRefusesNUL(t *testing.T) {
	p := New()
	p.Add(Execute([]string{"/bin/sh"}, []string{"a\x00b"}, nil, 0))
	if _, err := p.Encode(); err == nil || !strings.Contains(err.Error(), "NUL") {
		t.Errorf("Encode() = %v, want an error that names the NUL byte", err)
	}
}

// The op table is the single source of the header and of the reference page.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	for path, want := range map[string]string{"../initc/ops.h": Header(), "../../docs/ops.md": Doc()} {
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s is out of date (%v): run go generate ./runtime/plan", path, err)
		}
	}
}

func TestEveryOpIsDocumented(t *testing.T) {
	for k := Kind(1); k < kinds; k++ {
		d := table[k]
		if d.name == "" || d.doc == "" || d.needs == "" || d.makes == "" || d.undone == "" || d.repeat == "" || d.sides[0] == 0 {
			t.Errorf("op kind %d %q lacks a part of its row", k, d.name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Decode(b); err == nil && len(e.Ops) != len(e.Index) {
			t.Fatal("ops and indices differ in number")
		}
	})
}
