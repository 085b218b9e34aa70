package api

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// monitors are the pids of this machine's monitors.
func monitors(t *testing.T) []int {
	t.Helper()
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	var pids []int
	for _, path := range comms {
		b, _ := os.ReadFile(path)
		if strings.TrimSpace(string(b)) != "cri-mini-monitor"[:15] { // TASK_COMM_LEN, without the NUL
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// TestStartThatHangs: it keeps neither lists nor status waiting, of its own pod or of others, and a stop or a removal
// gives it up. What hangs is the monitor, stopped by a signal; to the daemon that is no different from an init that
// waits for a volume whose server is gone.
func TestStartThatHangs(t *testing.T) {
	n := start(t)
	p := n.runPod("hangs")
	p.run("first", "true").ends()
	stuck := []*container{p.create("stopped", "true"), p.create("removed", "true"), p.create("with-its-pod", "true")}
	resume := stopMonitors(t)
	defer resume()
	started := make(chan error, len(stuck))
	for _, c := range stuck {
		go func() { started <- c.start() }()
	}
	time.Sleep(200 * time.Millisecond)
	promptly := func(what string, f func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := f(ctx); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	promptly("ListContainers", func(ctx context.Context) error {
		r, err := n.Runtime.ListContainers(ctx, &criapi.ListContainersRequest{})
		if err == nil && len(r.Containers) != 4 {
			t.Errorf("%d containers are listed, want 4", len(r.Containers))
		}
		return err
	})
	promptly("ListPodSandbox", func(ctx context.Context) error {
		_, err := n.Runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
		return err
	})
	promptly("ContainerStatus", func(ctx context.Context) error {
		r, err := n.Runtime.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: stuck[0].id})
		if err == nil && r.Status.State != criapi.ContainerState_CONTAINER_CREATED {
			t.Errorf("state %s, want CREATED", r.Status.State)
		}
		return err
	})
	promptly("StopContainer", func(ctx context.Context) error {
		_, err := n.Runtime.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: stuck[0].id, Timeout: 30})
		return err
	})
	stuck[0].mustEnd(128, "StartError")
	promptly("RemoveContainer", func(ctx context.Context) error {
		_, err := n.Runtime.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: stuck[1].id})
		return err
	})
	promptly("StopPodSandbox", func(ctx context.Context) error {
		_, err := n.Runtime.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: p.id})
		return err
	})
	for range stuck {
		mustFail(t, <-started, codes.Unknown, "start container", "it was stopped while it started")
	}
	// The monitor clones now what it was asked for then. Those inits find no cgroup to join, and end: nothing is left.
}

// stopMonitors sends SIGSTOP to all; the result lets them go on.
func stopMonitors(t *testing.T) (resume func()) {
	t.Helper()
	pids := monitors(t)
	if len(pids) == 0 {
		t.Fatal("there is no monitor to stop")
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
}

// TestRunPodSandboxBesideItsContainers: a retried RunPodSandbox looks for the pod that is there already while
// containers of it come and go. Neither waits for the other for ever.
func TestRunPodSandboxBesideItsContainers(t *testing.T) {
	n := start(t)
	p := n.runPod("retried")
	var all sync.WaitGroup
	limit, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i := range 3 {
		all.Go(func() {
			for range 300 {
				if r, err := n.Runtime.RunPodSandbox(limit, &criapi.RunPodSandboxRequest{Config: p.config}); err != nil || r.PodSandboxId != p.id {
					t.Errorf("RunPodSandbox: %v, pod %q, want %q", err, r.GetPodSandboxId(), p.id)
					return
				}
			}
		})
		all.Go(func() {
			for j := range 60 {
				c := containerConfig(fmt.Sprintf("c%d-%d", i, j), "true")
				r, err := n.Runtime.CreateContainer(limit, &criapi.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
				if err == nil {
					_, err = n.Runtime.RemoveContainer(limit, &criapi.RemoveContainerRequest{ContainerId: r.ContainerId})
				}
				if err != nil {
					t.Errorf("create and remove a container: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}
