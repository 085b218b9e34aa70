// Package arch_test holds the import table of the design and fails on an arrow
// that is not in it. To add an arrow, change the table here and say why in the
// commit; a package without a row fails too.
package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cri-mini/cri-mini"

// row says which rows of the table a package may import. A name stands for the
// directory and all below it; the longest name that fits is the package's row.
type row struct {
	name string
	may  []string
	// pure packages touch no kernel: their tests need no root and no machine.
	pure bool
}

// anything is for wiring and for harnesses.
var anything = []string{""}

// table is ordered from the top of the program to its floor.
var table = []row{
	{name: "cmd/cri-mini", may: anything},
	{name: "cmd/mini-runc", may: []string{"runtime", "internal/linux"}},
	{name: "cmd/cri-mini-init", may: []string{"runtime/monitor", "runtime/initc", "runtime/wire", "runtime/plan", "internal/linux"}},

	{name: "cri", may: []string{"sandbox", "image"}},
	{name: "admin", may: []string{"sandbox", "image"}},
	{name: "sandbox", may: []string{"oci", "netns", "runtime", "internal/linux"}},
	{name: "image", may: []string{"oci", "internal/linux"}},
	{name: "netns", may: []string{"internal/linux"}},
	{name: "oci", may: []string{"runtime/host", "runtime/unit"}, pure: true},

	{name: "runtime/compile", may: []string{"runtime/plan", "runtime/host", "runtime/seccomp", "runtime/unit"}, pure: true},
	{name: "runtime/engine", may: []string{"runtime/checkpoint", "runtime/plan", "runtime/wire", "runtime/cgroup", "runtime/journal", "runtime/host", "internal/linux"}},
	{name: "runtime/monitor", may: []string{"runtime/plan", "runtime/wire", "internal/linux"}},
	{name: "runtime/journal", may: []string{"runtime/plan"}},
	{name: "runtime/wire", may: []string{"runtime/plan"}},
	{name: "runtime/cgroup", may: []string{"runtime/host", "runtime/unit", "internal/linux"}},
	{name: "runtime/checkpoint"},
	{name: "runtime/seccomp"},
	{name: "runtime/initc"},
	{name: "runtime/host", may: []string{"internal/linux"}},
	{name: "runtime/plan", pure: true},
	{name: "runtime/unit", pure: true},
	{name: "internal/linux"},

	{name: "bench", may: anything},
	{name: "test", may: anything},
	{name: "demo", may: anything},
}

// impure are the doors to the kernel that a pure package does not open itself.
var impure = []string{"os/exec", "syscall", "golang.org/x/sys/unix", "net", "net/http", module + "/internal/linux"}

// listed is what go list tells about a package.
type listed struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Module       *struct{ Path string }
	Standard     bool
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Name,Imports,TestImports,XTestImports,Module,Standard"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var pkgs []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func inside(dir, name string) bool {
	return name == "" || dir == name || strings.HasPrefix(dir, name+"/")
}

func rowOf(dir string) (row, bool) {
	var best row
	for _, r := range table {
		if inside(dir, r.name) && len(r.name) > len(best.name) {
			best = r
		}
	}
	return best, best.name != ""
}

func (r row) allows(dir string) bool {
	return inside(dir, r.name) || slices.ContainsFunc(r.may, func(name string) bool { return inside(dir, name) })
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, p := range list(t, "./...") {
		dir := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if dir == "" {
			continue // this package
		}
		r, ok := rowOf(dir)
		if !ok {
			t.Errorf("%s has no row in the table", dir)
			continue
		}
		for _, i := range p.Imports {
			if to, ours := strings.CutPrefix(i, module+"/"); ours && !r.allows(to) {
				t.Errorf("%s imports %s; %s may import only %v", dir, to, r.name, r.may)
			}
			// The generator beside a pure package is a program.
			if r.pure && p.Name != "main" && slices.Contains(impure, i) {
				t.Errorf("%s imports %s; it is pure", dir, i)
			}
		}
	}
}

// A reviewer looks for memory trouble in one directory, and for C in one file.
func TestUnsafeAndCHaveOneHomeEach(t *testing.T) {
	homes := map[string]string{"unsafe": "internal/linux", "C": "runtime/initc"}
	for _, p := range list(t, "./...") {
		dir := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if home, ok := homes[i]; ok && dir != home {
				t.Errorf("%s imports %q; only %s may", dir, i, home)
			}
		}
	}
}

// cri-mini-init is in memory once per monitor and is what stands between a
// container and the host: few imports, none of them large.
func TestInitStaysSmall(t *testing.T) {
	refused := map[string]string{
		"net":       "4 MB of the monitor's memory",
		"net/http":  "as net, and a protocol that nobody speaks to a monitor",
		"os/signal": "a goroutine and a thread; a monitor reads a signalfd",
		"os/exec":   "the monitor clones by itself",
		"log/slog":  "the monitor tells the daemon, which logs",
	}
	for _, p := range list(t, "-deps", "./cmd/cri-mini-init") {
		if why, ok := refused[p.ImportPath]; ok {
			t.Errorf("cri-mini-init depends on %s: %s", p.ImportPath, why)
		}
		if m := p.Module; m != nil && m.Path != module && m.Path != "golang.org/x/sys" {
			t.Errorf("cri-mini-init depends on %s of module %s", p.ImportPath, m.Path)
		}
	}
}

// The engine stands alone: nothing that mini-runc is made of knows of Kubernetes.
func TestRuntimeKnowsNoKubernetes(t *testing.T) {
	for _, p := range list(t, "-deps", "./runtime/...") {
		for _, above := range []string{"k8s.io/", "google.golang.org/grpc", "github.com/containerd/containerd"} {
			if strings.HasPrefix(p.ImportPath, above) {
				t.Errorf("a package under runtime depends on %s", p.ImportPath)
			}
		}
	}
}

func TestTableItself(t *testing.T) {
	tests := []struct {
		name string
		from string
		to   string
		want bool
	}{
		{"down", "sandbox", "runtime/engine", true},
		{"up", "runtime/engine", "sandbox", false},
		{"own part", "image/store", "image/unpack", true},
		{"part of a neighbour", "netns/bridge", "image/store", false},
		{"longest name counts", "runtime/plan", "internal/linux", false},
		{"a name is no mere prefix", "cri", "image-tools", false},
		{"wiring", "cmd/cri-mini", "cri", true},
		{"init", "cmd/cri-mini-init", "cri", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := rowOf(tt.from)
			if !ok || r.allows(tt.to) != tt.want {
				t.Errorf("%s -> %s: row %v, allowed %v, want %v", tt.from, tt.to, r, r.allows(tt.to), tt.want)
			}
		})
	}
	if _, ok := rowOf("util"); ok {
		t.Error("util has a row")
	}
}
