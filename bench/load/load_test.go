package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	tests := []struct {
		name   string
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		{"none", nil, 50, 0},
		{"one", hundred[:1], 99, 1},
		{"median of two", hundred[:2], 50, 1},
		{"median of three", hundred[:3], 50, 2},
		{"p99 of a hundred", hundred, 99, 99},
		{"all", hundred, 100, 100},
		{"p99 of fifty", hundred[:50], 99, 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := percentile(tt.sorted, tt.p); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

func TestMemory(t *testing.T) {
	if got := parsePSS("Rss:   900 kB\nPss:    421 kB\nPss_Anon: 7 kB\n"); got != 421 {
		t.Errorf("PSS %d", got)
	}
	for _, tt := range []struct {
		comm, arg0 string
		want       bool
	}{
		{"cri-mini-init", "3", true},
		{"containerd-shim", "containerd-shim-runc-v2", true},
		{"cri-mini-monito", "x", true},
		{"cri-mini", "cri-mini", false},
		{"sh", "sh", false},
		{"", "", false},
	} {
		if got := helperName(tt.comm, tt.arg0); got != tt.want {
			t.Errorf("%q %q: %v", tt.comm, tt.arg0, got)
		}
	}
	if m := measureMemory(os.Getpid(), 3); m.Daemon == 0 || m.Pods != 3 {
		t.Errorf("own memory: %v", m)
	}
}

// runtime is a runtime that keeps lists and does nothing; it is here to test the
// client's bookkeeping, not to be measured.
type runtime struct {
	criapi.UnimplementedRuntimeServiceServer
	criapi.UnimplementedImageServiceServer
	mu       sync.Mutex
	n        int
	pods     map[string]map[string]string // labels
	logs     map[string]string
	failExec bool
	pulled   bool
}

func (s *runtime) Version(context.Context, *criapi.VersionRequest) (*criapi.VersionResponse, error) {
	return &criapi.VersionResponse{RuntimeName: "fake", RuntimeVersion: "1"}, nil
}

func (s *runtime) ImageStatus(context.Context, *criapi.ImageStatusRequest) (*criapi.ImageStatusResponse, error) {
	return &criapi.ImageStatusResponse{}, nil
}

func (s *runtime) PullImage(context.Context, *criapi.PullImageRequest) (*criapi.PullImageResponse, error) {
	s.pulled = true
	return &criapi.PullImageResponse{}, nil
}

func (s *runtime) RunPodSandbox(_ context.Context, r *criapi.RunPodSandboxRequest) (*criapi.RunPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	id := fmt.Sprint("pod", s.n)
	s.pods[id] = r.Config.Labels
	return &criapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (s *runtime) CreateContainer(_ context.Context, r *criapi.CreateContainerRequest) (*criapi.CreateContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := "c-" + r.PodSandboxId
	s.logs[id] = filepath.Join(r.SandboxConfig.LogDirectory, r.Config.LogPath)
	// A line of another pod would make the client stop this one too early.
	if _, err := os.Stat(s.logs[id]); err == nil {
		return nil, fmt.Errorf("log %s is there before its container", s.logs[id])
	}
	return &criapi.CreateContainerResponse{ContainerId: id}, nil
}

func (s *runtime) StartContainer(_ context.Context, r *criapi.StartContainerRequest) (*criapi.StartContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &criapi.StartContainerResponse{}, os.WriteFile(s.logs[r.ContainerId], []byte("ready\n"), 0o600)
}

func (s *runtime) ExecSync(context.Context, *criapi.ExecSyncRequest) (*criapi.ExecSyncResponse, error) {
	if s.failExec {
		return &criapi.ExecSyncResponse{ExitCode: 127, Stderr: []byte("no true")}, nil
	}
	return &criapi.ExecSyncResponse{}, nil
}

func (s *runtime) StopContainer(context.Context, *criapi.StopContainerRequest) (*criapi.StopContainerResponse, error) {
	return &criapi.StopContainerResponse{}, nil
}

func (s *runtime) RemoveContainer(context.Context, *criapi.RemoveContainerRequest) (*criapi.RemoveContainerResponse, error) {
	return &criapi.RemoveContainerResponse{}, nil
}

func (s *runtime) StopPodSandbox(context.Context, *criapi.StopPodSandboxRequest) (*criapi.StopPodSandboxResponse, error) {
	return &criapi.StopPodSandboxResponse{}, nil
}

func (s *runtime) RemovePodSandbox(_ context.Context, r *criapi.RemovePodSandboxRequest) (*criapi.RemovePodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods[r.PodSandboxId] == nil {
		return nil, errors.New("no such pod")
	}
	delete(s.pods, r.PodSandboxId)
	return &criapi.RemovePodSandboxResponse{}, nil
}

func (s *runtime) ListPodSandbox(_ context.Context, r *criapi.ListPodSandboxRequest) (*criapi.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &criapi.ListPodSandboxResponse{}
	for id, labels := range s.pods {
		if labels[label] == r.Filter.LabelSelector[label] {
			resp.Items = append(resp.Items, &criapi.PodSandbox{Id: id})
		}
	}
	return resp, nil
}

// serve returns the options that reach a fake runtime.
func serve(t *testing.T) (*runtime, options) {
	t.Helper()
	fake := &runtime{pods: map[string]map[string]string{}, logs: map[string]string{}}
	socket := filepath.Join(t.TempDir(), "cri.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	criapi.RegisterRuntimeServiceServer(server, fake)
	criapi.RegisterImageServiceServer(server, fake)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	out := filepath.Join(t.TempDir(), "report.json")
	return fake, options{
		endpoint: "unix://" + socket, image: "x", runs: 5, workers: 3, pods: 7, cgroup: "/bench",
		modes: "serial,parallel,updown,exec,parallel-exec", daemon: os.Getpid(), jsonFile: out,
	}
}

func TestAllModes(t *testing.T) {
	fake, o := serve(t)
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(fake.pods) != 0 || !fake.pulled {
		t.Errorf("pods left: %v; pulled: %v", fake.pods, fake.pulled)
	}
	data, err := os.ReadFile(o.jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	counts := map[string]string{}
	for _, m := range r.Modes {
		var s []string
		for _, c := range m.Calls {
			s = append(s, fmt.Sprintf("%s:%d", strings.Fields(c.Name)[0], c.Count))
		}
		for _, rt := range m.Rates {
			if rt.PerSecond <= 0 {
				t.Errorf("%s: %v", m.Mode, rt)
			}
			s = append(s, rt.What)
		}
		counts[m.Mode] = strings.Join(s, " ")
	}
	life := func(n int) string {
		return strings.ReplaceAll("RunPodSandbox:n CreateContainer:n StartContainer:n ready:n first:n StopContainer:n RemoveContainer:n StopPodSandbox:n RemovePodSandbox:n", ":n", fmt.Sprint(":", n))
	}
	for mode, want := range map[string]string{
		"serial":        life(5) + " life cycles",
		"parallel":      life(5) + " life cycles",
		"updown":        life(7) + " pods up pods down",
		"exec":          "ExecSync:50 execs",
		"parallel-exec": "ExecSync:50 execs",
	} {
		if counts[mode] != want {
			t.Errorf("%s:\n got %s\nwant %s", mode, counts[mode], want)
		}
	}
	if len(r.Memory) != 2 || r.Memory[1].Pods != 7 || r.Memory[1].Daemon == 0 {
		t.Errorf("memory %v", r.Memory)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	fake, o := serve(t)
	fake.failExec = true
	err := run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "mode exec: ExecSync true: exit code 127: no true") {
		t.Errorf("error %v", err)
	}
	if len(fake.pods) != 0 {
		t.Errorf("pods left: %v", fake.pods)
	}
}

func TestBadFlags(t *testing.T) {
	_, o := serve(t)
	for _, bad := range []func(*options){
		func(o *options) { o.modes = "serial,nonsense" },
		func(o *options) { o.runs = 0 },
	} {
		o := o
		bad(&o)
		if err := run(t.Context(), o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestTable(t *testing.T) {
	r := newResult("serial")
	r.add(callRun, 1500*time.Microsecond)
	r.rate("life cycles", 1, time.Second)
	r.finish(time.Second)
	var b bytes.Buffer
	r.print(&b)
	for _, want := range []string{"serial (1.0 s)", "1.50", callRun, "life cycles: 1.0/s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &b)
		}
	}
}
