package crash

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// stopMonitors stops all monitors as a debugger or a mistaken kill would.
func (n *node) stopMonitors() []int {
	pids := n.monitors()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGSTOP)
	}
	return pids
}

// TestStoppedMonitor: what needs a monitor that was stopped gets another one in bounded time, and what the stopped one
// held is neither lost nor done twice.
func TestStoppedMonitor(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	steps := []struct {
		name string
		do   func(t *testing.T, p *pod, c *container)
	}{
		{"own end", func(t *testing.T, _ *pod, c *container) {
			_ = unix.Kill(c.pid(), unix.SIGTERM)
			c.stop(1)
			c.mustExit(7, "Error")
		}},
		{"remove pod", func(t *testing.T, p *pod, _ *container) { p.remove() }},
		{"exec", func(t *testing.T, _ *pod, c *container) {
			if r := c.exec(0, "echo there"); string(r.Stdout) != "there\n" {
				t.Errorf("exec: %v", r)
			}
			c.mustRun()
		}},
		{"restart of the daemon", func(t *testing.T, _ *pod, c *container) { n.restart(); c.mustRun() }},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			n.on(t).start()
			p := n.runPod(n.podConfig("stopped"))
			c := p.run("a", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
			c.says("ready")
			stopped := n.stopMonitors()
			began := time.Now()
			s.do(t, p, c)
			took := time.Since(began)
			t.Logf("= %s beside a stopped monitor: %.1f s", s.name, took.Seconds())
			for _, pid := range stopped {
				_ = unix.Kill(pid, unix.SIGCONT)
			}
			if took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			p.remove()
			n.mustBeEmpty()
			n.stop()
		})
	}
}

// TestMonitorGoesOn: one that was stopped for a while only is kept.
func TestMonitorGoesOn(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("pause"))
	c := p.run("a", "while :; do sleep 0.05; done")
	pids := n.stopMonitors()
	time.AfterFunc(3*time.Second, func() {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	})
	c.stop(0)
	c.mustExit(137, "Error")
	if now := n.monitors(); len(now) != len(pids) || now[0] != pids[0] {
		t.Errorf("monitors %v have become %v", pids, now)
	}
	p.remove()
	n.mustBeEmpty()
}

// pid is the process id of its init.
func (c *container) pid() int {
	c.n.t.Helper()
	var pid int
	call(c.n, "ContainerStatus", func(ctx context.Context, _ bool) (*criapi.ContainerStatusResponse, error) {
		r, err := c.n.rt.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: c.id, Verbose: true})
		if err != nil {
			return r, err
		}
		var info struct{ PID int }
		err = json.Unmarshal([]byte(r.Info["info"]), &info)
		pid = info.PID
		return r, err
	})
	return pid
}
