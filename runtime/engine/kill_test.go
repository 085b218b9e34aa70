package engine

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// TestKillClonedSparesStrangers: the pids of a start that failed may be others' by now. Of the cloned init the
// descriptor is the truth; who it forked is a child of the monitor, which is this test here.
func TestKillClonedSparesStrangers(t *testing.T) {
	sleeper := func() *exec.Cmd {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		return c
	}
	gone := exec.Command("true")
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := linux.PidfdOpen(gone.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	if err := gone.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		monitor int
		dies    bool
	}{{"a stranger", 1, false}, {"a child of the monitor", os.Getpid(), true}} {
		t.Run(tt.name, func(t *testing.T) {
			first, forked := sleeper(), sleeper() // who has got the pid of the init by now, and that of whom it forked
			page, err := linux.NewSharedPage("test")
			if err != nil {
				t.Fatal(err)
			}
			page.Store32(plan.ProgressAtPID, uint32(forked.Process.Pid))
			proc := &process{id: "c", kind: wire.Container, pidfd: pidfd, client: &client{pid: tt.monitor, dead: make(chan struct{})}, done: make(chan struct{})}
			e := &Engine{procs: map[string]*process{"c": proc}}
			r := &run{page: page, child: spawned{pid: first.Process.Pid}}
			defer r.close()
			e.killCloned(proc, r)
			for _, who := range []struct {
				*exec.Cmd
				dies bool
			}{{first, false}, {forked, tt.dies}} {
				if died := dies(who.Cmd); died != who.dies {
					t.Errorf("process %d died: %t, want %t", who.Process.Pid, died, who.dies)
				}
			}
		})
	}
}

// dies tells whether a process has a SIGKILL to die of: it takes effect in its own time, but is there at once.
func dies(c *exec.Cmd) bool {
	_ = unix.Kill(c.Process.Pid, unix.SIGSTOP) // one that was killed does not stop
	var st unix.WaitStatus
	if _, err := unix.Wait4(c.Process.Pid, &st, unix.WUNTRACED, nil); err != nil {
		return true
	}
	return st.Signaled()
}
