package api

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExecSync(t *testing.T) {
	n := start(t)
	c := n.runPod("exec").run("main", "", idle, func(c *criapi.ContainerConfig) {
		c.Envs = []*criapi.KeyValue{{Key: "NAME", Value: []byte("value")}}
		c.WorkingDir = "/tmp"
	})
	for _, x := range []struct {
		script, stdout, stderr string
		code                   int32
	}{
		{"echo out; echo err >&2; exit 5", "out\n", "err\n", 5},
		{"printf 'no end'", "no end", "", 0},
		{"echo $NAME; pwd", "value\n/tmp\n", "", 0},
		{"kill -KILL $$", "", "", 137},
		{"cat", "", "", 0}, // standard input is empty, not open
		{"printf 'a\\000b'", "a\x00b", "", 0},
	} {
		r, err := c.tryExec(10, x.script)
		if err != nil || r.ExitCode != x.code || string(r.Stdout) != x.stdout || string(r.Stderr) != x.stderr {
			t.Errorf("%s: %d %q %q %v", x.script, r.GetExitCode(), r.GetStdout(), r.GetStderr(), err)
		}
	}
	for _, seconds := range []int64{math.MaxInt64, 18446744074} { // more than a time.Duration holds: they would wrap to -1 s and 0.29 s
		if r, err := c.tryExec(seconds, "sleep 0.5; exit 4"); err != nil || r.ExitCode != 4 {
			t.Errorf("with a timeout of %d s: %d %v", seconds, r.GetExitCode(), err)
		}
	}
	n.unchanged(func() {
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				want := fmt.Sprintf("%d\n", i)
				r, err := c.tryExec(10, fmt.Sprintf("echo %d; exit %d", i, i))
				if err != nil || string(r.Stdout) != want || r.ExitCode != int32(i) {
					t.Errorf("exec %d gave %d %q %v", i, r.GetExitCode(), r.GetStdout(), err)
				}
			})
		}
		all.Wait()
	})
}

// TestTrapExecTimeoutKillsAllItForked: what the command started dies too, whatever session it moved to.
func TestTrapExecTimeoutKillsAllItForked(t *testing.T) {
	n := start(t)
	c := n.runPod("timeout").run("main", "while :; do sleep 100000 & wait $!; done") // reaps
	until(t, "the container does not settle", func() bool { return slices.Contains(n.Look(), "process sleep: sleep 100000") })
	for _, x := range []struct{ name, script string }{
		{"a child", "sleep 1234"},
		{"a grandchild in a session of its own", "setsid sh -c 'sleep 1234 & sleep 1234' & sleep 1234"},
		{"one that ignores signals", "trap '' TERM INT HUP; while :; do sleep 1234; done"},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			n.unchanged(func() {
				began := time.Now()
				_, err := c.tryExec(1, x.script)
				mustFail(t, err, codes.DeadlineExceeded, c.id[:12], "1s")
				if took := time.Since(began); took < time.Second || took > 3*time.Second {
					t.Errorf("took %s, want 1 s", took)
				}
			})
		})
	}
	if got := c.exec("echo still here"); got != "still here" {
		t.Errorf("the container answers %q", got)
	}
}

// TestTrapBackgroundChildHoldsTheExecPipe: a background child that holds the pipes delays nothing, and lives on.
func TestTrapBackgroundChildHoldsTheExecPipe(t *testing.T) {
	n := start(t)
	c := n.runPod("background").run("main", "", idle)
	for _, timeout := range []int64{0, 20} {
		began := time.Now()
		r, err := c.tryExec(timeout, "sleep 1234 & echo done")
		if took := time.Since(began); err != nil || string(r.Stdout) != "done\n" || took > 2*time.Second {
			t.Errorf("timeout %d: %q %v after %s", timeout, r.GetStdout(), err, took)
		}
	}
	if got := c.exec("pgrep -f 1234 2>/dev/null || ps | grep -c '[s]leep 1234'"); got != "2" {
		t.Errorf("%s of the 2 that were left behind live", got)
	}
}

func TestTrapExecSyncCapsOutput(t *testing.T) {
	n := start(t)
	c := n.runPod("limit").run("main", "", idle)
	const limit = 16 << 20
	r, err := c.tryExec(25, "head -c 17000000 /dev/zero; head -c 17000000 /dev/zero >&2; exit 3")
	if err != nil || r.ExitCode != 3 || len(r.Stdout) != limit || len(r.Stderr) != limit {
		t.Errorf("%d bytes and %d bytes, code %d, %v; want %d each", len(r.GetStdout()), len(r.GetStderr()), r.GetExitCode(), err, limit)
	}
	r, err = c.tryExec(25, "head -c 5000000 /dev/zero | tr '\\0' x")
	if err != nil || !bytes.Equal(r.Stdout, []byte(strings.Repeat("x", 5000000))) {
		t.Errorf("%d bytes of 5000000: %v", len(r.GetStdout()), err)
	}
}

// TestExecWhoseContainerEnds: the call ends with it.
func TestExecWhoseContainerEnds(t *testing.T) {
	n := start(t)
	c := n.runPod("ends").run("main", "", idle)
	done := make(chan error, 1)
	go func() {
		r, err := c.tryExec(0, "echo started > /tmp/x; sleep 1234")
		if err == nil && r.ExitCode != 137 {
			err = fmt.Errorf("exit code %d", r.ExitCode)
		}
		done <- err
	}()
	until(t, "the exec does not start", func() bool {
		r, err := c.tryExec(5, "cat /tmp/x")
		return err == nil && string(r.Stdout) == "started\n"
	})
	c.stop(0)
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the exec: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the exec outlives its container")
	}
}
