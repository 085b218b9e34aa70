package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// freeze stands a container still, as an administrator would or a checkpoint that was cut short; thaw it.
func (c *container) freeze() (thaw func()) {
	c.n.t.Helper()
	for _, root := range daemon.Hierarchies() {
		for file, values := range map[string][2]string{"freezer.state": {"FROZEN", "THAWED"}, "cgroup.freeze": {"1", "0"}} {
			path := filepath.Join(root, parent, c.id, file)
			if onV2() == strings.HasPrefix(file, "freezer") || os.WriteFile(path, []byte(values[0]), 0) != nil {
				continue
			}
			return func() { _ = os.WriteFile(path, []byte(values[1]), 0) }
		}
	}
	c.n.t.Fatal("the container has no freezer")
	return nil
}

// TestFrozenContainer can be stopped and removed, and takes no command. On cgroup v1 a frozen process does not die.
func TestFrozenContainer(t *testing.T) {
	n := start(t)
	p := n.runPod("frozen")
	for _, end := range []struct {
		name string
		how  func(c *container)
	}{
		{"stopped", func(c *container) { c.stop(0) }},
		{"removed", func(c *container) { c.remove() }},
		{"with-its-pod", func(*container) {
			if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
				t.Errorf("StopPodSandbox: %v", err)
			}
		}},
	} {
		c := p.run(end.name, "", idle)
		thaw := c.freeze()
		defer thaw()
		_, err := c.tryExec(1, "true")
		mustFail(t, err, codes.FailedPrecondition, c.id, "frozen")
		end.how(c)
	}
}

// TestExecThatNobodyCanEnd: neither its timeout nor the SIGKILL behind it ends a command that was frozen meanwhile. The
// call ends all the same, and the command once it can.
func TestExecThatNobodyCanEnd(t *testing.T) {
	if onV2() {
		t.Skip("on cgroup v2 a frozen process dies of SIGKILL")
	}
	n := start(t)
	c := n.runPod("stuck").run("main", "", idle)
	answer := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := c.tryExec(2, "echo here > /here; sleep 1001")
		answer <- err
	}()
	until(t, "the command has not begun", func() bool {
		r, err := c.tryExec(10, "cat /here")
		return err == nil && r.ExitCode == 0
	})
	thaw := c.freeze()
	defer thaw()
	mustFail(t, <-answer, codes.DeadlineExceeded, "no end after 2s")
	t.Logf("the call ended after %s", time.Since(began))
	thaw()
	if out := c.exec("ps"); strings.Contains(out, "1001") {
		until(t, "the command lives on", func() bool { return !strings.Contains(c.exec("ps"), "1001") })
	}
}

// TestExecWhoseMonitorIsStopped: its timeout holds although nobody is there to see to it.
func TestExecWhoseMonitorIsStopped(t *testing.T) {
	n := start(t)
	c := n.runPod("unwatched").run("main", "", idle)
	answer := make(chan error, 1)
	go func() {
		_, err := c.tryExec(2, "echo here > /here; sleep 1001")
		answer <- err
	}()
	until(t, "the command has not begun", func() bool {
		r, err := c.tryExec(10, "cat /here")
		return err == nil && r.ExitCode == 0
	})
	pids := monitors(t)
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGSTOP)
	}
	mustFail(t, <-answer, codes.DeadlineExceeded, "no end after 2s")
	if out := c.exec("ps"); strings.Contains(out, "1001") {
		t.Errorf("the command lives on:\n%s", out)
	}
}
