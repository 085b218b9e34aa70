package oci

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// request is a cri.json: the configs as crictl reads them, and what the daemon
// would have looked up. Without a container the case is about the pod.
type request struct {
	IDs struct {
		Pod       string `json:"pod"`
		Container string `json:"container"`
	} `json:"ids"`
	Pod         *criapi.PodSandboxConfig `json:"pod"`
	Container   *criapi.ContainerConfig  `json:"container,omitempty"`
	Image       *ispec.Image             `json:"image,omitempty"`
	Passwd      string                   `json:"passwd,omitempty"`
	Group       string                   `json:"group,omitempty"`
	NodeName    string                   `json:"nodeName,omitempty"`
	TargetPIDNS string                   `json:"targetPIDNS,omitempty"`
	Devices     []NodeDevice             `json:"devices,omitempty"`
	Volumes     map[int]Volume           `json:"volumes,omitempty"`
	Seccomp     json.RawMessage          `json:"seccompProfile,omitempty"`
	// Facts is laid over host.Reference.
	Facts json.RawMessage `json:"facts,omitempty"`
	Exec  *ExecInput      `json:"exec,omitempty"`
}

func readRequest(t *testing.T, file string) request {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r request
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("decode %s: %v", file, err)
	}
	return r
}

func (r request) facts(t *testing.T) host.Facts {
	t.Helper()
	f := host.Reference()
	if r.Facts != nil {
		if err := json.Unmarshal(r.Facts, &f); err != nil {
			t.Fatalf("decode facts: %v", err)
		}
	}
	return f
}

func (r request) podInput(t *testing.T) PodInput {
	return PodInput{ID: r.IDs.Pod, Config: r.Pod, Facts: r.facts(t)}
}

func (r request) containerInput(t *testing.T) ContainerInput {
	return ContainerInput{
		ID: r.IDs.Container, PodID: r.IDs.Pod, Pod: r.Pod, Config: r.Container, Image: r.Image,
		Passwd: []byte(r.Passwd), Group: []byte(r.Group), Facts: r.facts(t), NodeName: r.NodeName,
		TargetPIDNS: r.TargetPIDNS, Devices: r.Devices, Volumes: r.Volumes, SeccompProfile: r.Seccomp,
	}
}

// TestGolden compares what each testdata/<case>/cri.json comes to with the
// config.json beside it, and the process of an exec with process.json.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/cri.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r := readRequest(t, file)
			var s *specs.Spec
			var err error
			if r.Container == nil {
				s, err = Pod(r.podInput(t))
			} else {
				s, err = Container(r.containerInput(t))
			}
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join(dir, "config.json"), s)
			if r.Exec != nil {
				golden(t, filepath.Join(dir, "process.json"), Exec(s, *r.Exec))
			}
		})
	}
}

func golden(t *testing.T, file string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s\nrewrite: go test ./oci -run '%s' -update", file, d, t.Name())
	}
}
