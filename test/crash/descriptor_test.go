package crash

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// leaveFree lowers a process's limit to so many descriptors above those that it has; below 0 it has what it had.
func leaveFree(t testing.TB, pid, free int, had *unix.Rlimit) {
	t.Helper()
	limit := *had
	if free >= 0 {
		entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		limit.Cur = uint64(len(entries) + free)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

// lap runs a pod with a container that ends with 9 and an exec in another, and removes it: each step that fails is
// remembered, and what was made is removed.
func (n *node) lap(name string, in *container) (failed []error) {
	config := n.podConfig(name)
	_ = os.MkdirAll(config.LogDirectory, 0o755)
	defer os.RemoveAll(config.LogDirectory)
	step := func(f func(ctx context.Context) error) bool {
		ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
		defer cancel()
		if err := f(ctx); err != nil {
			failed = append(failed, err)
			return false
		}
		return true
	}
	_ = in == nil || step(func(ctx context.Context) error {
		r, err := n.rt.ExecSync(ctx, in.execRequest(5, "exit 3"))
		if err == nil && r.ExitCode != 3 {
			err = errors.New("ExecSync: exit code " + strconv.Itoa(int(r.ExitCode)))
		}
		return err
	})
	var pod, ctr string
	ok := step(func(ctx context.Context) error {
		r, err := n.rt.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		pod = r.GetPodSandboxId()
		return err
	})
	ok = ok && step(func(ctx context.Context) error {
		r, err := n.rt.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: containerConfig("c", "exit 9"), SandboxConfig: config})
		ctr = r.GetContainerId()
		return err
	})
	ok = ok && step(func(ctx context.Context) error {
		_, err := n.rt.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: ctr})
		return err
	})
	if ok {
		(&container{n: n, id: ctr}).mustExit(9, "Error")
	}
	if pod != "" {
		step(func(ctx context.Context) error {
			_, err := n.rt.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: pod})
			return err
		})
	}
	return failed
}

// removeAll removes every pod but one.
func (n *node) removeAll(but string) {
	n.t.Helper()
	pods := call(n, "ListPodSandbox", func(ctx context.Context, _ bool) ([]*criapi.PodSandbox, error) {
		r, err := n.rt.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
		return r.GetItems(), err
	})
	for _, p := range pods {
		if p.Id != but {
			(&pod{n: n, id: p.Id}).remove()
		}
	}
}

// TestOutOfDescriptors: each error of a daemon or a monitor that may open nothing more, or only a few files, says so, and
// no call hangs; when it may again, everything works, and nothing is left.
func TestOutOfDescriptors(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	for _, who := range []string{"daemon", "monitor"} {
		t.Run(who, func(t *testing.T) {
			n.on(t).start()
			p := n.runPod(n.podConfig("resident"))
			c := p.run("a", "exec sleep 1000")
			c.exec(60, "until read -r name </proc/1/comm && [ $name = sleep ]; do :; done")
			want := n.steady() // before any pod is removed: a link goes in its own time, and would be missing afterwards
			n.lap("warm", c)
			pid := n.daemon.Process.Pid
			if who == "monitor" {
				pid = n.monitors()[0]
			}
			var had unix.Rlimit
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &had); err != nil {
				t.Fatal(err)
			}
			errs := 0
			for free := range 30 {
				leaveFree(t, pid, free, &had)
				failed := n.lap("few"+strconv.Itoa(free), c)
				leaveFree(t, pid, -1, &had)
				for _, err := range failed {
					if errs++; !strings.Contains(err.Error(), unix.EMFILE.Error()) {
						t.Errorf("with %d descriptors free: %v", free, err)
					}
				}
				c.mustRun()
				n.removeAll(p.id)
				if failed := n.lap("many", c); len(failed) > 0 {
					t.Fatalf("with many descriptors again after %d: %v", free, failed)
				}
			}
			t.Logf("= %s with 0 to 29 descriptors free: %d errors, each says so", who, errs)
			n.mustLookLike(want, settled)
			p.remove()
			n.mustBeEmpty()
			n.stop()
		})
	}
}

// TestMonitorCannotAccept: a daemon that comes back to a monitor without a free descriptor is let in as soon as there
// is one, and meanwhile the monitor sleeps.
func TestMonitorCannotAccept(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("full"))
	c := p.run("a", "while :; do sleep 0.05; done")
	pid := n.monitors()[0]
	var had unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &had); err != nil {
		t.Fatal(err)
	}
	n.kill()
	leaveFree(t, pid, -1, &unix.Rlimit{Cur: 3, Max: had.Max})
	time.AfterFunc(3*time.Second, func() { leaveFree(t, pid, -1, &had) })
	before := cpuTime(t, pid)
	began := time.Now()
	n.start()
	took, used := time.Since(began), cpuTime(t, pid)-before
	t.Logf("= a monitor that could accept nobody for %.1f s used %v of CPU time", took.Seconds(), used)
	if took < time.Second || used > 200*time.Millisecond {
		t.Errorf("the daemon was back after %v, the monitor used %v", took, used)
	}
	if now := n.monitors(); len(now) != 1 || now[0] != pid {
		t.Errorf("monitor %d has become %v", pid, now)
	}
	c.stop(0)
	p.remove()
	n.mustBeEmpty()
}

// cpuTime is what a process has used, in ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
