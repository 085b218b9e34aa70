package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// counting prints numbered lines on both streams for some seconds and would tell of a SIGPIPE by its exit code.
func counting(lines, code int) string {
	return fmt.Sprintf(`trap 'exit 99' PIPE; i=0; while [ $i -lt %d ]; do echo out $i; echo err $i >&2; i=$((i+1)); [ $((i %% 200)) != 0 ] || sleep 0.02; done; exit %d`, lines, code)
}

// mustCount checks that every line of a counting container is in its log once, in order.
func (c *container) mustCount(lines int) {
	c.n.t.Helper()
	for _, stream := range []struct{ name, prefix string }{{"stdout", "out "}, {"stderr", "err "}} {
		got := entries(c.n.t, c.log, stream.name)
		for i := range max(lines, len(got)) {
			if i >= len(got) || i >= lines || got[i] != stream.prefix+strconv.Itoa(i) {
				c.n.t.Errorf("%s: %d lines of %s, want %d; line %d is wrong: %q", c.log, len(got), stream.name, lines, i, got[max(0, i-1):min(len(got), i+2)])
				break
			}
		}
	}
}

// monitors are the pids of the monitors.
func (n *node) monitors() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && strings.Contains(string(b), "\x00monitor\x00"+n.run) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

func (n *node) killMonitors() {
	n.t.Helper()
	pids := n.monitors()
	if len(pids) == 0 {
		n.t.Fatal("there is no monitor to kill")
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			n.t.Fatalf("kill monitor %d: %v", pid, err)
		}
	}
}

// Whoever dies, daemon, monitors or both, and how many pods a monitor has: containers run on, meet no SIGPIPE, lose no
// line and double none, and end with their own codes.
func TestContainersOutliveTheirKeepers(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	for _, pods := range []int{1, 16} {
		for _, victim := range []string{"daemon", "monitor", "both"} {
			t.Run(fmt.Sprintf("%s with %d pods per monitor", victim, pods), func(t *testing.T) {
				n.on(t).outlive(victim, pods)
			})
		}
	}
}

func (n *node) outlive(victim string, podsPerMonitor int) {
	const lines = 20000
	n.configure(podsPerMonitor)
	n.start()
	var all []*pod
	var counters []*container
	for i := range 2 {
		p := n.runPod(n.podConfig(fmt.Sprintf("%s-%d-%d", victim, podsPerMonitor, i)))
		all = append(all, p)
		counters = append(counters, p.run("a", counting(lines, 10+i)), p.run("b", counting(lines, 20+i)))
	}
	if want := 2 / podsPerMonitor; podsPerMonitor == 1 && len(n.monitors()) < want {
		n.t.Errorf("%d monitors for 2 pods, want %d", len(n.monitors()), want)
	}
	stayer := all[0].run("stayer", `trap 'exit 4' TERM; echo here; while :; do sleep 0.05; done`)
	stayer.says("here")
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		n.strike(victim)
	}
	for i, code := range []int32{10, 20, 11, 21} {
		counters[i].mustExit(code, "Error")
		counters[i].mustCount(lines)
	}
	stayer.mustRun()
	if r := stayer.exec(10, "echo works; exit 3"); r.ExitCode != 3 || string(r.Stdout) != "works\n" {
		n.t.Errorf("exec afterwards: %d %q, want 3 works", r.ExitCode, r.Stdout)
	}
	if err := os.Rename(stayer.log, stayer.log+".1"); err != nil {
		n.t.Fatal(err)
	}
	stayer.reopen()
	if _, err := os.Stat(stayer.log); err != nil {
		n.t.Errorf("the log was not opened again: %v", err)
	}
	stayer.stop(10)
	stayer.mustExit(4, "Error")
	for _, p := range all {
		p.stop()
		p.remove()
	}
	n.mustList(0, 0)
	n.stop()
}

// strike kills, and starts a daemon again if there is none.
func (n *node) strike(victim string) {
	n.t.Helper()
	if victim != "monitor" {
		n.kill()
	}
	if victim != "daemon" {
		n.killMonitors()
	}
	if victim != "monitor" {
		time.Sleep(100 * time.Millisecond) // what is printed now nobody reads
		n.start()
	}
}

// A container that ends while no daemon is there: its code is kept by the monitor.
func TestExitWithoutDaemon(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("p"))
	c := p.run("c", `sleep 0.5; echo last words; exit 5`)

	n.kill()
	time.Sleep(time.Second)
	n.start()
	c.mustExit(5, "Error")
	if l := c.lines(); len(l) != 1 || l[0] != "last words" {
		t.Errorf("its log has %q, want last words", l)
	}

	p.stop()
	p.remove()
	n.mustList(0, 0)
	n.stop()
}

// An exec whose monitor dies is answered, not left hanging.
func TestExecWhoseMonitorDies(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("p"))
	c := p.run("c", "echo up; sleep 1000")
	c.says("up")
	type answer struct {
		r   *criapi.ExecSyncResponse
		err error
	}
	done := make(chan answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
		defer cancel()
		r, err := n.rt.ExecSync(ctx, c.execRequest(10, "sleep 2; exit 6"))
		done <- answer{r, err}
	}()
	time.Sleep(500 * time.Millisecond)
	n.killMonitors()
	select {
	case a := <-done:
		if a.err == nil && a.r.ExitCode != 6 && a.r.ExitCode != 255 {
			t.Errorf("exec ended with %d, want 6, 255 for unknown, or an error", a.r.ExitCode)
		}
	case <-time.After(15 * time.Second):
		t.Error("15 s after its monitor was killed the exec is not answered")
	}
	c.mustRun()
	p.stop()
	p.remove()
	n.stop()
}
