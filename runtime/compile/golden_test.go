package compile

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

var update = flag.Bool("update", false, "rewrite the plan.txt files")

const ociCases = "../../oci/testdata"

// fakeSeccomp stands for the compiler of profiles: two instructions, named by what they would do.
func fakeSeccomp(s *specs.LinuxSeccomp) ([]byte, uint64, string, error) {
	return make([]byte, 16), 0, fmt.Sprintf("%s+%d-rules", s.DefaultAction, len(s.Syscalls)), nil
}

// TestGolden compiles each case and compares with the plan.txt beside it. Cases are this package's own, with
// options.json laid over the reference machine, and what the CRI compiler made, with the daemon's options.
// An exec has a process.json.
func TestGolden(t *testing.T) {
	for _, pattern := range []string{"testdata/*/config.json", ociCases + "/*/config.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no cases at %s: %v", pattern, err)
		}
		for _, file := range files {
			dir := filepath.Dir(file)
			t.Run(filepath.Base(dir), func(t *testing.T) { goldenCase(t, dir) })
		}
	}
}

func goldenCase(t *testing.T, dir string) {
	p, err := compileCase(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if encoded, err := p.Encode(); err != nil {
		t.Error(err)
	} else if _, err := plan.Decode(encoded); err != nil {
		t.Error(err)
	}
	name := filepath.Join(dir, "plan.txt")
	if *update {
		if err := os.WriteFile(name, []byte(p.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), p.String()); d != "" {
		t.Errorf("%s differs (-want +got); if it should, run\n\tgo test ./runtime/compile -run TestGolden -update\n%s", name, d)
	}
}

func compileCase(t *testing.T, dir string) (*plan.Plan, error) {
	var spec specs.Spec
	readJSON(t, filepath.Join(dir, "config.json"), &spec)
	o := caseOptions(t, dir)
	if file := filepath.Join(dir, "process.json"); exists(file) {
		var proc specs.Process
		readJSON(t, file, &proc)
		o.Container, o.ID = o.ID, "exec1"
		o.Rootfs, o.Stdio = Rootfs{}, Stdio{}
		return Exec(&spec, &proc, o)
	}
	if spec.Root == nil {
		return Pod(&spec, o)
	}
	return Container(&spec, o)
}

// caseOptions are those of the daemon, unless the case brings its own.
func caseOptions(t *testing.T, dir string) Options {
	o := Options{Facts: host.Reference(), Seccomp: fakeSeccomp}
	if file := filepath.Join(dir, "options.json"); exists(file) {
		readJSON(t, file, &o)
		return o
	}
	var request struct {
		IDs   struct{ Pod, Container string }
		Facts json.RawMessage
	}
	readJSON(t, filepath.Join(dir, "cri.json"), &request)
	if request.Facts != nil {
		if err := json.Unmarshal(request.Facts, &o.Facts); err != nil {
			t.Fatal(err)
		}
	}
	o.RunDir, o.PrivateDir, o.Stage = "/run/cri-mini", "/run/cri-mini/pods", "/run/cri-mini/stage"
	if o.ID = request.IDs.Container; o.ID == "" {
		o.ID = request.IDs.Pod
		return o
	}
	state := "/var/lib/cri-mini/containers/" + o.ID
	o.Rootfs = Rootfs{Lower: []string{"/var/lib/cri-mini/layers/2", "/var/lib/cri-mini/layers/1"}, Upper: state + "/upper", Work: state + "/work"}
	o.Stdio.Dir = "/run/cri-mini/pods/" + request.IDs.Pod + "/c/" + o.ID
	return o
}

func readJSON(t testing.TB, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if filepath.Base(file) == "options.json" {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(into); err != nil {
		t.Fatalf("decode %s: %v", file, err)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
