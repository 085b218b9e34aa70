package api

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestContainerLife: the states and times that kubelet reads, from the first to the last.
func TestContainerLife(t *testing.T) {
	n := start(t)
	p := n.runPod("life")
	c := p.create("main", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done", func(c *criapi.ContainerConfig) {
		c.Labels, c.Annotations = map[string]string{"l": "1"}, map[string]string{"a": "2"}
	})
	st := c.status()
	if st.State != criapi.ContainerState_CONTAINER_CREATED || st.CreatedAt == 0 || st.StartedAt != 0 || st.FinishedAt != 0 || st.Labels["l"] != "1" || st.Annotations["a"] != "2" || st.LogPath != c.log {
		t.Errorf("created: %v", st)
	}
	_, err := c.tryExec(5, "true")
	mustFail(t, err, codes.FailedPrecondition, c.id, "created")
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	c.says("ready")
	if st = c.status(); st.State != criapi.ContainerState_CONTAINER_RUNNING || st.StartedAt < st.CreatedAt || st.FinishedAt != 0 {
		t.Errorf("running: %v", st)
	}
	began := time.Now()
	c.stop(20)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if st = c.status(); st.State != criapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 3 || st.Reason != "Error" || st.FinishedAt < st.StartedAt {
		t.Errorf("exited: %v", st)
	}
	c.says("bye")
	c.stop(0)
	c.remove()
	c.remove()
	c.stop(0)
	_, err = n.Runtime.ContainerStatus(n.ctx(), &criapi.ContainerStatusRequest{ContainerId: c.id})
	mustFail(t, err, codes.NotFound, c.id)
}

// TestStopTimeout: what ignores the signal is killed when the time is up, and what is to be removed at once.
func TestStopTimeout(t *testing.T) {
	n := start(t)
	p := n.runPod("stubborn")
	script := "trap '' TERM; echo ready; while :; do sleep 1000; done"
	c := p.run("main", script)
	c.says("ready")
	began := time.Now()
	c.stop(1)
	if took := time.Since(began); took < time.Second || took > 3*time.Second {
		t.Errorf("the stop took %s, want 1 s", took)
	}
	c.mustEnd(137, "Error")
	d := p.run("other", script)
	d.says("ready")
	began = time.Now()
	d.remove()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the removal took %s", took)
	}
	f := p.run("patient", script)
	f.says("ready")
	for _, seconds := range []int64{math.MaxInt64/int64(time.Second) + 1, math.MaxInt64} {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		_, err := n.Runtime.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: f.id, Timeout: seconds})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded || f.status().State != criapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("a timeout of %d s was up at once: %v, %s", seconds, err, f.status().State)
		}
	}
	f.remove()
	e := p.run("signal", "trap 'exit 9' USR1; echo ready; while :; do sleep 1000 & wait $!; done", func(c *criapi.ContainerConfig) { c.StopSignal = criapi.Signal_SIGNAL_SIGUSR1 })
	e.says("ready")
	e.stop(10)
	e.mustEnd(9, "Error")
	n.mustList(1, 2)
}

// TestMounts: what a container gets of the node, and what not.
func TestMounts(t *testing.T) {
	n := start(t)
	p := n.runPod("mounts")
	c := p.run("main", "", idle,
		mount("/etc", "/node/etc", func(m *criapi.Mount) { m.Readonly = true }),
		mount("/etc/passwd", "/node/passwd", func(m *criapi.Mount) { m.Readonly = true }),
		func(c *criapi.ContainerConfig) { c.Linux.SecurityContext.ReadonlyRootfs = true })
	if got := c.exec("cat /node/passwd /node/etc/passwd | grep -c ^root:"); got != "2" {
		t.Errorf("%s of the 2 mounts show the node's file", got)
	}
	for _, path := range []string{"/node/etc/x", "/node/passwd", "/x", "/proc/sys/kernel/panic", "/sys/kernel/x", "/etc/hosts"} {
		r, err := c.tryExec(5, "echo > "+path)
		if err != nil || r.ExitCode == 0 || !strings.Contains(string(r.Stderr), "ead-only") {
			t.Errorf("a write to %s: %d %q %v", path, r.GetExitCode(), r.GetStderr(), err)
		}
	}
	c.exec("echo > /dev/shm/x; hostname | grep -x mounts")
	if st := c.status(); len(st.Mounts) != 2 || st.Mounts[0].HostPath != "/etc" {
		t.Errorf("status: %v", st.Mounts)
	}
}
