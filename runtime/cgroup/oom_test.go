package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeSlice stands for a slice of a v2 hierarchy with scopes in it, which systemd
// removes at any time: no real one can be told when.
type fakeSlice struct {
	t     *testing.T
	tree  *Tree
	slice string
	all   int
}

func newFakeSlice(t *testing.T) *fakeSlice {
	t.Helper()
	root := t.TempDir()
	if err := unix.Setxattr(root, "trusted.probe", []byte("1"), 0); err != nil {
		t.Skipf("no trusted attributes here, which tell settled kills: %v", err)
	}
	layout := testLayout("v2")
	layout.Unified = root
	tree, err := New(Config{Layout: layout})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeSlice{t: t, tree: tree, slice: filepath.Join(root, "p.slice")}
	f.write(f.slice, 0)
	return f
}

func (f *fakeSlice) write(dir string, kills int) {
	f.t.Helper()
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/memory.events", fmt.Appendf(nil, "oom 9\noom_kill %d\n", kills), 0o644))
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeSlice) scope(id string) string { return filepath.Join(f.slice, "c-"+id+".scope") }

// kill is what the kernel does: the scope counts, and the slice with it.
func (f *fakeSlice) kill(id string, n int) {
	f.t.Helper()
	f.all += n
	f.write(f.scope(id), n)
	f.write(f.slice, f.all)
}

// vanish is what systemd does.
func (f *fakeSlice) vanish(id string) {
	f.t.Helper()
	if err := os.RemoveAll(f.scope(id)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeSlice) kills(id string) uint64 { return f.tree.OOMKills("p.slice:c:" + id) }
func (f *fakeSlice) settle(id string)       { f.tree.settle("p.slice:c:" + id) }

func (f *fakeSlice) want(id string, n uint64) {
	f.t.Helper()
	if got := f.kills(id); got != n {
		f.t.Errorf("kills of %s: %d, want %d", id, got, n)
	}
}

func TestOOMKillsOfAScopeThatIsGone(t *testing.T) {
	tests := []struct {
		name string
		do   func(f *fakeSlice)
	}{
		{"it is still there", func(f *fakeSlice) { f.kill("a", 2); f.want("a", 2) }},
		{"it is gone", func(f *fakeSlice) { f.kill("a", 2); f.vanish("a"); f.want("a", 2); f.want("a", 2) }},
		{"it is going: its files first", func(f *fakeSlice) {
			f.kill("a", 2)
			if err := os.Remove(f.scope("a") + "/memory.events"); err != nil {
				f.t.Fatal(err)
			}
			f.want("a", 2)
			f.settle("a")
			f.vanish("a")
			f.kill("b", 0)
			f.vanish("b")
			f.want("b", 0)
		}},
		{"the other was killed, and lives", func(f *fakeSlice) {
			f.kill("a", 0)
			f.kill("b", 1)
			f.vanish("a")
			f.want("a", 0)
			f.want("b", 1)
		}},
		{"both, one after the other", func(f *fakeSlice) {
			f.kill("a", 1)
			f.vanish("a")
			f.want("a", 1)
			f.settle("a")
			f.want("a", 0)
			f.kill("b", 0)
			f.vanish("b")
			f.want("b", 0)
			f.settle("b")
			f.kill("c", 3)
			f.vanish("c")
			f.want("c", 3)
		}},
		{"settled while it is there", func(f *fakeSlice) {
			f.kill("a", 1)
			f.settle("a")
			f.settle("a") // a removal that is tried again
			f.kill("b", 1)
			f.vanish("b")
			f.want("b", 1) // while a is there
			f.vanish("a")
			f.want("b", 1) // and when it is gone
		}},
		{"nothing was killed", func(f *fakeSlice) { f.kill("a", 0); f.settle("a"); f.vanish("a"); f.settle("a"); f.want("a", 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.do(newFakeSlice(t)) })
	}
}
