package crash

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// counting prints numbered lines on both streams as fast as it can and would tell of a SIGPIPE by its exit code. At the
// end it may wait for a file.
func counting(lines, code int, wait string) string {
	return fmt.Sprintf(`trap 'exit 99' PIPE; i=0; while [ $i -lt %d ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; until [ -e %s ]; do sleep 0.05; done; exit %d`, lines, wait, code)
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

// killMonitors kills all that there are. For a moment there may be none.
func (n *node) killMonitors() int {
	pids := n.monitors()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return len(pids)
}

// Whoever dies, daemon, monitors or both, and how many pods a monitor has: containers that print as fast as they can run
// on, meet no SIGPIPE, lose no line and double none, and end with their own codes.
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
	defer func() {
		if n.t.Failed() {
			n.wipe()
		}
	}()
	const podsRun = 2
	n.configure(podsPerMonitor)
	n.start()
	var all []*pod
	for i := range podsRun {
		all = append(all, n.runPod(n.podConfig(fmt.Sprintf("%s-%d-%d", victim, podsPerMonitor, i))))
	}
	var stayers []*container
	for _, p := range all {
		stayers = append(stayers, p.run("stayer", `trap 'exit 4' TERM; echo here; while :; do sleep 0.05; done`))
	}
	for _, c := range stayers {
		c.says("here")
	}
	if podsPerMonitor == 1 && len(n.monitors()) < podsRun {
		n.t.Errorf("%d monitors for %d pods of one each", len(n.monitors()), podsRun)
	}
	strikes, rounds := 0, 0
	for strikes < 3 && !n.t.Failed() { // a slow machine starts few daemons while a container counts
		rounds++
		strikes += n.strikeCounters(victim, fmt.Sprintf("count%d", rounds), all)
	}
	if n.t.Failed() {
		return
	}
	n.t.Logf("= killed %d times (%s, %d pods per monitor) under %d containers of 2 × %d lines: every line once, every code right", strikes, victim, podsPerMonitor, rounds*podsRun, countedLines)
	n.strike(victim)
	for _, c := range stayers {
		n.mustServeOn(c)
	}
	for _, p := range all {
		p.stop()
		p.remove()
	}
	n.mustList(0, 0)
	n.stop()
}

// countedLines is how many lines on each stream a container prints under the strikes.
const countedLines = 100000

// strikeCounters kills, at least once, until a container that counts has come to its end in each pod.
func (n *node) strikeCounters(victim, name string, pods []*pod) int {
	n.t.Helper()
	// The code of a container that ends while both are dead is lost: nobody was its parent.
	wait := "/"
	if victim == "both" {
		wait = "/tmp/go"
	}
	var counters []*container
	for i, p := range pods {
		counters = append(counters, p.run(name, counting(countedLines, 10+i, wait)))
	}
	strikes := 0
	for limit := time.Now().Add(time.Minute); strikes == 0 || slices.ContainsFunc(counters, func(c *container) bool { return !c.hasCounted(countedLines) }); {
		if time.Now().After(limit) {
			n.t.Fatalf("after %d strikes and a minute they have not ended: %s", strikes, describe(counters))
		}
		n.strike(victim)
		strikes++
		time.Sleep(time.Duration(20+rand.IntN(150)) * time.Millisecond)
	}
	for i, c := range counters {
		if victim == "both" {
			c.exec(10, "touch "+wait)
		}
		c.mustExit(int32(10+i), "Error")
		c.mustCount(countedLines)
	}
	return strikes
}

// describe tells where containers that do not get on stand.
func describe(all []*container) string {
	var b strings.Builder
	for _, c := range all {
		data, _ := os.ReadFile(c.log)
		fmt.Fprintf(&b, "\n%s %s, %d bytes of log, which end with %q", c.id[:12], c.status().State, len(data), data[max(0, len(data)-200):])
	}
	return b.String()
}

// hasCounted: it has ended, or waits behind its last line.
func (c *container) hasCounted(lines int) bool {
	if c.status().State != criapi.ContainerState_CONTAINER_RUNNING {
		return true
	}
	data, err := os.ReadFile(c.log)
	for _, stream := range []string{"out", "err"} {
		if err != nil || !bytes.Contains(data, fmt.Appendf(nil, " %s %d\n", stream, lines-1)) {
			return false
		}
	}
	return true
}

// mustServeOn does to a container with a new keeper what kubelet does.
func (n *node) mustServeOn(c *container) {
	n.t.Helper()
	c.mustRun()
	if r := c.exec(10, "echo works; exit 3"); r.ExitCode != 3 || string(r.Stdout) != "works\n" {
		n.t.Errorf("exec: %d %q %q, want 3 works", r.ExitCode, r.Stdout, r.Stderr)
	}
	if err := os.Rename(c.log, c.log+".1"); err != nil {
		n.t.Fatal(err)
	}
	c.reopen()
	if _, err := os.Stat(c.log); err != nil {
		n.t.Errorf("the log was not opened again: %v", err)
	}
	c.stop(10)
	c.mustExit(4, "Error")
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
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // what is printed now nobody reads
		n.start()
	}
}

// A container that ends while nobody is there: without a daemon its code is kept by the monitor; with nobody it is lost,
// which is said.
func TestExitInAbsence(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("p"))
	c := p.run("c", `trap 'echo last words; exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	c.says("ready")
	pid := c.pid()
	n.kill()
	endProcess(t, pid)
	n.start()
	c.mustExit(5, "Error")
	if l := c.lines(); !slices.Equal(l, []string{"ready", "last words"}) {
		t.Errorf("its log has %q, want ready and last words", l)
	}

	d := p.run("d", `trap 'echo nobody hears; exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	d.says("ready")
	term := containerConfig("t", "echo there; exec sleep 1000")
	term.Tty = true
	e := p.create(term)
	e.start()
	pid = d.pid()
	n.kill()
	n.killMonitors()
	endProcess(t, pid)
	n.start()
	d.mustExit(255, "Unknown")
	e.mustRun() // PID 1 of its namespace is spared the SIGHUP of a terminal that nobody holds any more

	p.stop()
	p.remove()
	n.mustList(0, 0)
	n.stop()
}

// endProcess asks a process that is not ours to end, and waits until it was reaped.
func endProcess(t testing.TB, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, fmt.Sprintf("process %d is still there", pid), func() bool { return unix.Kill(pid, 0) != nil })
}

// A terminal is held by the daemon too: its container survives the monitor and is heard by the next.
func TestTerminalOutlivesMonitor(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("p"))
	config := containerConfig("t", `i=0; while [ $i -lt 40 ]; do echo tick $i; i=$((i+1)); sleep 0.05; done; exit 6`)
	config.Tty = true
	c := p.create(config)
	c.start()
	c.says("tick 3")
	n.killMonitors()
	c.says("tick 15")
	n.kill() // now the new monitor is the one holder
	n.start()
	n.killMonitors()
	c.mustExit(6, "Error")
	c.says("tick 39")
	p.stop()
	p.remove()
	n.stop()
}

// An exec whose monitor dies ends as it would have: by itself, or by its timeout.
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
	answers := make(map[string]chan answer)
	for script, timeout := range map[string]int64{"sleep 2; echo done; exit 6": 20, "sleep 100": 4, "sleep 100 & setsid sh -c 'sleep 100' & sleep 100": 4} {
		done := make(chan answer, 1)
		answers[script] = done
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
			defer cancel()
			r, err := n.rt.ExecSync(ctx, c.execRequest(timeout, script))
			done <- answer{r, err}
		}()
	}
	time.Sleep(500 * time.Millisecond)
	n.killMonitors()
	for script, done := range answers {
		select {
		case a := <-done:
			if script[:7] == "sleep 2" {
				if a.err != nil || a.r.ExitCode != 6 || string(a.r.Stdout) != "done\n" {
					t.Errorf("exec that ends by itself: %v, %v, want 6 done", a.r, a.err)
				}
			} else if status.Code(a.err) != codes.DeadlineExceeded {
				t.Errorf("exec %q that does not: %v, %v, want DeadlineExceeded", script, a.r, a.err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("20 s after its monitor was killed the exec %q is not answered", script)
		}
	}
	c.mustRun()
	if out := string(c.exec(5, "ps").Stdout); strings.Contains(out, "sleep 100\n") {
		t.Errorf("what the execs have started runs on:\n%s", out)
	}
	p.stop()
	p.remove()
	n.stop()
}

// Monitors that die while pods begin: each request ends, with an error at worst, and nothing is left.
func TestMonitorsDieUnderStarts(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.configure(2)
	n.start()
	p := n.runPod(n.podConfig("first"))
	p.run("c", "exit 0").mustExit(0, "Completed")
	p.stop()
	p.remove()
	n.mustBeEmpty()
	want := n.steady()
	stop, killed := make(chan struct{}), make(chan int)
	go func() {
		kills := 0
		for {
			select {
			case <-stop:
				killed <- kills
				return
			case <-time.After(time.Duration(rand.IntN(12)) * time.Millisecond):
				kills += n.killMonitors()
			}
		}
	}()
	failed := 0
	const rounds = 40
	for i := range rounds {
		if !n.attempt(fmt.Sprintf("p%d", i)) {
			failed++
		}
	}
	close(stop)
	t.Logf("= %d pods while monitors were killed %d times: %d came up, %d requests had an error, all ended", rounds, <-killed, rounds-failed, failed)
	if failed > rounds/10 {
		t.Errorf("%d of %d pods did not come up: a monitor that dies is to be replaced unseen", failed, rounds)
	}
	n.mustList(0, 0)
	n.mustLookLike(want, settled)
	n.stop()
}

// attempt runs a pod with one container to its end, and removes what there is if something fails on the way.
func (n *node) attempt(name string) bool {
	config := n.podConfig(name)
	_ = os.MkdirAll(config.LogDirectory, 0o755)
	defer os.RemoveAll(config.LogDirectory)
	step := func(what string, f func(ctx context.Context) error) bool {
		ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
		defer cancel()
		err := f(ctx)
		if status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Unavailable {
			n.t.Errorf("%s of %s: %v", what, name, err)
		}
		return err == nil
	}
	var pod, ctr string
	ok := step("RunPodSandbox", func(ctx context.Context) error {
		r, err := n.rt.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		pod = r.GetPodSandboxId()
		return err
	})
	ok = ok && step("CreateContainer", func(ctx context.Context) error {
		r, err := n.rt.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: containerConfig("c", "exit 9"), SandboxConfig: config})
		ctr = r.GetContainerId()
		return err
	})
	ok = ok && step("StartContainer", func(ctx context.Context) error {
		_, err := n.rt.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: ctr})
		return err
	})
	if ok {
		(&container{n: n, id: ctr}).mustExit(9, "Error")
	}
	if pod != "" {
		if !step("RemovePodSandbox", func(ctx context.Context) error {
			_, err := n.rt.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: pod})
			return err
		}) {
			n.t.Errorf("%s was not removed", name)
		}
	}
	return ok
}

// A daemon that comes back to very many containers of one monitor.
func TestManyContainersOfOneMonitor(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	const count = 200
	var pods []*pod
	for i := range 4 {
		p := n.runPod(n.podConfig(fmt.Sprintf("p%d", i)))
		pods = append(pods, p)
		for j := range count / 4 {
			p.run(fmt.Sprintf("c%d", j), "exec sleep 1000")
		}
	}
	for range 3 {
		n.restart()
	}
	n.mustList(4, count)
	r := call(n, "ListContainers", func(ctx context.Context, _ bool) (*criapi.ListContainersResponse, error) {
		return n.rt.ListContainers(ctx, &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{State: &criapi.ContainerStateValue{State: criapi.ContainerState_CONTAINER_RUNNING}}})
	})
	if len(r.Containers) != count {
		t.Errorf("%d of %d containers run", len(r.Containers), count)
	}
	for _, p := range pods {
		p.stop()
		p.remove()
	}
	n.mustList(0, 0)
	n.mustBeEmpty()
	n.stop()
}
