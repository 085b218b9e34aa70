package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/stream"
)

func eachProtocol(t *testing.T, n *node, f func(n *node, p stream.Protocol)) {
	for name, p := range stream.Protocols {
		t.Run(name, func(t *testing.T) { f(&node{n.Daemon, t}, p) })
	}
}

var (
	output   = stream.Want{Stdout: true, Stderr: true}
	all      = stream.Want{Stdin: true, Stdout: true, Stderr: true}
	terminal = stream.Want{Stdin: true, Stdout: true, TTY: true}
)

// session begins an exec.
func (c *container) session(p stream.Protocol, w stream.Want, script string) *stream.Session {
	c.n.t.Helper()
	r, err := c.n.Runtime.Exec(c.n.ctx(), &criapi.ExecRequest{ContainerId: c.id, Cmd: []string{"sh", "-c", script}, Stdin: w.Stdin, Stdout: w.Stdout, Stderr: w.Stderr, Tty: w.TTY})
	if err != nil {
		c.n.t.Fatalf("Exec: %v", err)
	}
	s, err := p(r.Url, w)
	if err != nil {
		c.n.t.Fatalf("Exec: %v", err)
	}
	return s
}

// finish reads a session to its end.
func finish(s *stream.Session) (stdout, stderr string, code int, err error) {
	var out, errout []byte
	var reading sync.WaitGroup
	reading.Go(func() { out = readAll(s.Stdout) })
	reading.Go(func() { errout = readAll(s.Stderr) })
	code, err = s.Wait()
	reading.Wait()
	s.Close()
	return string(out), string(errout), code, err
}

// readAll reads what there is: the end of a connection may be an error to a stream of it.
func readAll(r io.Reader) []byte {
	if r == nil {
		return nil
	}
	b, _ := io.ReadAll(r)
	return b
}

// expect reads until the text has come, and not a byte more.
func expect(t testing.TB, r io.Reader, text string) {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		var seen bytes.Buffer
		b := make([]byte, 1)
		for !strings.Contains(seen.String(), text) {
			k, err := r.Read(b)
			seen.Write(b[:k])
			if err != nil {
				seen.WriteString(" and then " + err.Error())
				break
			}
		}
		found <- seen.String()
	}()
	select {
	case seen := <-found:
		if !strings.Contains(seen, text) {
			t.Fatalf("read %.300q, want %q", seen, text)
		}
	case <-time.After(time.Minute):
		t.Fatalf("no %q after a minute", text)
	}
}

func TestExec(t *testing.T) {
	n := start(t)
	c := n.runPod("stream-exec").run("main", "", idle, func(c *criapi.ContainerConfig) {
		c.Envs = []*criapi.KeyValue{{Key: "NAME", Value: []byte("value")}}
	})
	eachProtocol(t, n, func(n *node, p stream.Protocol) {
		c := &container{n: n, id: c.id}
		for _, x := range []struct {
			script, stdout, stderr string
			code                   int
		}{
			{"echo out; echo err >&2; exit 5", "out\n", "err\n", 5},
			{"echo $NAME", "value\n", "", 0},
			{"kill -KILL $$", "", "", 137},
			{"cat", "", "", 0}, // without stdin it is empty, not open
			{"sleep 1234 & echo done", "done\n", "", 0},
		} {
			stdout, stderr, code, err := finish(c.session(p, output, x.script))
			if err != nil || code != x.code || stdout != x.stdout || stderr != x.stderr {
				n.t.Errorf("%s: %d %q %q %v", x.script, code, stdout, stderr, err)
			}
		}
		r, err := n.Runtime.Exec(n.ctx(), &criapi.ExecRequest{ContainerId: c.id, Cmd: []string{"/bin/none"}, Stdout: true})
		if err != nil {
			n.t.Fatal(err)
		}
		s, err := p(r.Url, stream.Want{Stdout: true})
		if err != nil {
			n.t.Fatal(err)
		}
		if _, _, _, err := finish(s); err == nil || !strings.Contains(err.Error(), "/bin/none: no such file or directory") {
			n.t.Errorf("a program that is not there: %v", err)
		}
	})
	c.exec("pkill -f 'sleep 1234' || killall sleep || true")
}

// TestExecHalfClose: the end of stdin alone reaches the command, which then goes on.
func TestExecHalfClose(t *testing.T) {
	n := start(t)
	c := n.runPod("half-close").run("main", "", idle)
	eachProtocol(t, n, func(n *node, p stream.Protocol) {
		s := (&container{n: n, id: c.id}).session(p, all, "wc -c; sleep .2; echo after; exit 3")
		go func() {
			_, _ = s.Stdin.Write(bytes.Repeat([]byte("x"), 300000))
			_ = s.Stdin.Close()
		}()
		if stdout, stderr, code, err := finish(s); stdout != "300000\nafter\n" || stderr != "" || code != 3 || err != nil {
			n.t.Errorf("%q %q %d %v", stdout, stderr, code, err)
		}
	})
}

func TestExecTerminal(t *testing.T) {
	n := start(t)
	c := n.runPod("terminal").run("main", "", idle)
	eachProtocol(t, n, func(n *node, p stream.Protocol) {
		s := (&container{n: n, id: c.id}).session(p, terminal, "tty; trap 'stty size' WINCH; echo ready; while :; do read -t 1 x && echo got $x && exit 4; done")
		expect(n.t, s.Stdout, "/dev/pts/")
		expect(n.t, s.Stdout, "ready")
		if err := s.Resize(132, 43); err != nil {
			n.t.Fatal(err)
		}
		expect(n.t, s.Stdout, "43 132")
		if _, err := io.WriteString(s.Stdin, "this\n"); err != nil {
			n.t.Fatal(err)
		}
		expect(n.t, s.Stdout, "got this")
		if _, _, code, err := finish(s); code != 4 || err != nil {
			n.t.Errorf("ended with %d, %v", code, err)
		}
	})
}

// TestExecSlowReader: the command waits for its reader, the daemon keeps nothing of 200 MB, and no byte is lost.
func TestExecSlowReader(t *testing.T) {
	n := start(t)
	c := n.runPod("slow").run("main", "", idle)
	const size = 200_000_000
	eachProtocol(t, n, func(n *node, p stream.Protocol) {
		before := n.memory()
		s := (&container{n: n, id: c.id}).session(p, output, fmt.Sprintf("head -c %d /dev/zero; echo end >&2; exit 6", size))
		time.Sleep(time.Second)
		if more := n.memory() - before; more > 32<<20 {
			n.t.Errorf("the daemon has grown by %d MiB for a reader that does not read", more>>20)
		}
		got, slept := 0, 0
		for b := make([]byte, 64<<10); got < size; {
			k, err := s.Stdout.Read(b)
			if got += k; err != nil {
				n.t.Fatalf("after %d of %d bytes: %v", got, size, err)
			}
			if slept < 10 && got > slept*size/10 {
				slept++
				time.Sleep(20 * time.Millisecond)
			}
		}
		expect(n.t, s.Stderr, "end\n")
		if stdout, _, code, err := finish(s); stdout != "" || code != 6 || err != nil {
			n.t.Errorf("%d bytes more, ended with %d, %v", len(stdout), code, err)
		}
	})
}

// memory is the daemon's resident memory in bytes.
func (n *node) memory() int {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.PID()))
	if err != nil {
		n.t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		n.t.Fatal(err)
	}
	return resident * os.Getpagesize()
}

// TestExecWhoseClientDies: the command goes with it, and all that it started.
func TestExecWhoseClientDies(t *testing.T) {
	n := start(t)
	c := n.runPod("dies").run("main", "while :; do sleep 100000 & wait $!; done") // reaps
	until(t, "the container does not settle", func() bool { return slices.Contains(n.Look(), "process sleep: sleep 100000") })
	eachProtocol(t, n, func(n *node, p stream.Protocol) {
		for _, x := range []struct {
			name, script string
			want         stream.Want
		}{
			{"a silent one", "echo ready; sleep 1234", output},
			{"one that reads", "echo ready; cat", all},
			{"one that writes", "echo ready; cat /dev/zero", output},
			{"one with a terminal", "echo ready; sleep 1234", terminal},
			{"one that ignores signals", "trap '' HUP TERM INT; echo ready; while :; do sleep 1234; done", terminal},
			{"one with a child in a session of its own", "setsid sh -c 'trap \"\" HUP; sleep 1234' & sleep .2; echo ready; sleep 1234", output},
		} {
			n.t.Logf("%s", x.name)
			n.unchanged(func() {
				s := (&container{n: n, id: c.id}).session(p, x.want, x.script)
				expect(n.t, s.Stdout, "ready")
				_ = s.Conn.Close()
				s.Close()
			})
		}
	})
}

// TestManySessionsLeaveNothing: 2000 execs and attachments, and the daemon has the goroutines and descriptors it
// had before.
func TestManySessionsLeaveNothing(t *testing.T) {
	n := start(t)
	c := n.runPod("many").run("main", "", idle, func(c *criapi.ContainerConfig) { c.Stdin = true })
	protocols := []stream.Protocol{stream.SPDY, stream.WebSocket}
	use := func(i int) error {
		if i%10 == 9 {
			s := c.attach(protocols[i%2], all)
			defer s.Close()
			return s.Conn.Close()
		}
		s := c.session(protocols[i%2], all, "cat; exit 9")
		_, _ = io.WriteString(s.Stdin, "hello")
		_ = s.Stdin.Close()
		stdout, _, code, err := finish(s)
		if err == nil && (stdout != "hello" || code != 9) {
			err = fmt.Errorf("session %d: %q %d", i, stdout, code)
		}
		return err
	}
	many := func(count int) {
		var workers sync.WaitGroup
		const together = 10
		for w := range together {
			workers.Go(func() {
				for i := w; i < count && !t.Failed(); i += together {
					if err := use(i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
	}
	many(20)
	n.unchanged(func() {
		goroutines, files := n.goroutines(), n.descriptors()
		many(20)
		before, open := n.goroutines(), n.descriptors() // of a daemon that has served as this one will have
		t.Logf("a fresh daemon: %d goroutines, %d descriptors; after 20 sessions: %d, %d", goroutines, files, before, open)
		many(2000)
		until(t, "the daemon has more descriptors than before", func() bool { return n.descriptors() <= open+3 })
		if after := n.goroutines(); after > before+5 {
			t.Errorf("%d goroutines after 20 sessions, %d after 2000; see the daemon's log", before, after)
		}
	})
}

func (n *node) descriptors() int {
	e, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	if err != nil {
		n.t.Fatal(err)
	}
	return len(e)
}

// goroutines counts those that the daemon says it has when it is told to quit, and starts it again.
func (n *node) goroutines() int {
	n.t.Helper()
	time.Sleep(1500 * time.Millisecond) // closed connections linger for a second
	before := len(n.LogTail(1 << 30))
	if err := errors.Join(syscall.Kill(n.PID(), syscall.SIGQUIT), n.Stop(), nil); err != nil {
		n.t.Fatal(err)
	}
	count := strings.Count(n.LogTail(1 << 30)[before:], "\ngoroutine ")
	if err := n.Start(); err != nil {
		n.t.Fatal(err)
	}
	if count == 0 {
		n.t.Fatal("the daemon told nothing when it quit")
	}
	return count
}
