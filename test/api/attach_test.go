package api

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/stream"
)

func (c *container) attach(p stream.Protocol, w stream.Want) *stream.Session {
	c.n.t.Helper()
	r, err := c.n.Runtime.Attach(c.n.ctx(), &criapi.AttachRequest{ContainerId: c.id, Stdin: w.Stdin, Stdout: w.Stdout, Stderr: w.Stderr, Tty: w.TTY})
	if err != nil {
		c.n.t.Fatalf("Attach: %v", err)
	}
	s, err := p(r.Url, w)
	if err != nil {
		c.n.t.Fatalf("Attach: %v", err)
	}
	return s
}

func stdin(c *criapi.ContainerConfig)     { c.Stdin = true }
func stdinOnce(c *criapi.ContainerConfig) { c.Stdin, c.StdinOnce = true, true }

// echoer answers each line, on both streams, with a prompt that has no end of line.
const echoer = "while :; do printf 'say: '; read x || exit 8; echo \"got $x\"; echo \"heard $x\" >&2; done"

// ask sends a line until it is answered: what is said while no monitor or daemon is there to attach to, only the log hears.
func ask(t testing.TB, s *stream.Session, line string) {
	t.Helper()
	answered := make(chan struct{})
	defer close(answered)
	say := func() error { _, err := io.WriteString(s.Stdin, line+"\n"); return err }
	if err := say(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			select {
			case <-answered:
				return
			case <-time.After(3 * time.Second):
				_ = say()
			}
		}
	}()
	expect(t, s.Stdout, "got "+line+"\nsay: ")
}

// TestAttach: each of several clients sees all output, the start of a line too, and may speak.
func TestAttach(t *testing.T) {
	n := start(t)
	c := n.runPod("attach").run("main", echoer, stdin)
	eachProtocol(t, n, func(n *node, p stream.Protocol) {
		c := &container{n: n, id: c.id}
		one, two := c.attach(p, all), c.attach(stream.SPDY, all)
		defer two.Close()
		ask(n.t, two, "are you there") // it is to see the answer to one
		ask(n.t, one, "first")
		expect(n.t, one.Stderr, "heard first\n")
		expect(n.t, two.Stdout, "got first\nsay: ")
		ask(n.t, two, "second")
		expect(n.t, one.Stdout, "got second\nsay: ")
		// The end of its stdin ends an attachment, and not the container's.
		if err := one.Stdin.Close(); err != nil {
			n.t.Fatal(err)
		}
		if _, _, code, err := finish(one); code != 0 || err != nil {
			n.t.Errorf("the first attachment ended with %d, %v", code, err)
		}
		ask(n.t, two, "third")
		_ = two.Conn.Close()
	})
	c.says("say: got third")
	last := c.attach(stream.SPDY, all)
	ask(t, last, "last") // the answer to the client comes before the attachment is made
	c.stop(0)
	if _, _, code, err := finish(last); code != 0 || err != nil {
		t.Errorf("with the container's end an attachment ended with %d, %v", code, err)
	}
}

// TestAttachStdinOnce: the container waits for its first client, whose end is the end of file, and its last words reach
// the client.
func TestAttachStdinOnce(t *testing.T) {
	n := start(t)
	p := n.runPod("once")
	for _, x := range []struct {
		name    string
		between func()
		leave   func(*stream.Session) error
	}{
		{"closes stdin", func() {}, func(s *stream.Session) error { return s.Stdin.Close() }},
		{"dies", func() {}, func(s *stream.Session) error { return s.Conn.Close() }},
		{"comes after another daemon", n.again, func(s *stream.Session) error { return s.Stdin.Close() }},
		{"comes after another monitor", n.killMonitors, func(s *stream.Session) error { return s.Stdin.Close() }},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := p.run(strings.ReplaceAll(x.name, " ", "-"), "echo ready; "+echoer, stdinOnce)
			c.n = &node{n.Daemon, t}
			c.says("ready")
			x.between()
			s := c.attach(stream.WebSocket, all)
			ask(t, s, "this")
			if err := x.leave(s); err != nil {
				t.Fatal(err)
			}
			c.mustEnd(8, "Error")
			if x.name != "dies" {
				if _, _, code, err := finish(s); code != 0 || err != nil {
					t.Errorf("ended with %d, %v", code, err)
				}
			}
		})
	}
}

// killMonitors kills each with SIGKILL, and waits until the containers have another.
func (n *node) killMonitors() {
	n.t.Helper()
	n.t.Cleanup(n.renameMonitors)
	killed := 0
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var pid int
		comm, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
		if _, err := fmt.Sscan(e.Name(), &pid); err == nil && string(comm) == "cri-mini-monito\n" && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	if killed == 0 {
		n.t.Fatal("there is no monitor")
	}
	time.Sleep(300 * time.Millisecond)
}

// renameMonitors lets the machine look as before with as many monitors, by other names.
func (n *node) renameMonitors() {
	n.removeAll()
	of := func(look []string, monitors bool) []string {
		return slices.DeleteFunc(slices.Clone(look), func(l string) bool { return strings.Contains(l, "/monitors/") != monitors })
	}
	now := of(settled(n.Daemon), true)
	if before := of(shared.clean, true); len(now) != len(before) {
		n.t.Errorf("monitors before:\n%s\nand after:\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"))
	}
	shared.clean = append(of(shared.clean, false), now...)
	slices.Sort(shared.clean)
}

// TestAttachSurvivesItsMonitor, and one can attach after a restart of the daemon.
func TestAttachSurvivesItsMonitor(t *testing.T) {
	n := start(t)
	c := n.runPod("survives").run("main", echoer, stdin)
	s := c.attach(stream.SPDY, all)
	ask(t, s, "before")
	n.killMonitors()
	ask(t, s, "after")
	n.again()
	s = c.attach(stream.SPDY, all)
	ask(t, s, "again")
	n.killMonitors()
	ask(t, s, "at last")
	s.Close()
	c.says("say: got at last")
}

// TestAttachTerminal: the terminal is the container's own, through the death of its daemon and its monitor.
func TestAttachTerminal(t *testing.T) {
	n := start(t)
	p := n.runPod("tty")
	c := p.run("main", "trap 'stty size' WINCH; while :; do read -t 1 x && echo got $x; done", stdin, func(c *criapi.ContainerConfig) { c.Tty = true })
	for i, between := range []func(){func() {}, n.again, n.killMonitors} {
		between()
		s := c.attach(stream.SPDY, terminal)
		if err := s.Resize(100+uint16(i), 50); err != nil {
			t.Fatal(err)
		}
		expect(t, s.Stdout, fmt.Sprintf("50 %d", 100+i))
		if _, err := io.WriteString(s.Stdin, "this\n"); err != nil {
			t.Fatal(err)
		}
		expect(t, s.Stdout, "got this")
		if err := s.Stdin.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, code, err := finish(s); code != 0 || err != nil {
			t.Errorf("ended with %d, %v", code, err)
		}
	}
	// A client that asks for none, or for one that is not there, gets what there is.
	plain := c.attach(stream.SPDY, all)
	if _, err := io.WriteString(plain.Stdin, "that\n"); err != nil {
		t.Fatal(err)
	}
	expect(t, plain.Stdout, "got that")
	plain.Close()
	other := p.run("other", echoer, stdin)
	s := other.attach(stream.WebSocket, terminal)
	ask(t, s, "this")
	s.Close()
}

// TestAttachSlowReader: a client that does not read is dropped with words. The container and its log do not wait for it.
func TestAttachSlowReader(t *testing.T) {
	n := start(t)
	const lines = 2_000_000
	p := n.runPod("slow-attach")
	c := p.run("main", fmt.Sprintf("while read x && [ $x != go ]; do echo got $x; printf 'say: '; done; echo; yes 0123456789abcdef | head -n %d; echo end; sleep 1000", lines), stdin)
	slow, starter := c.attach(stream.SPDY, all), c.attach(stream.SPDY, stream.Want{Stdin: true})
	ask(t, slow, "there")
	if _, err := io.WriteString(starter.Stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	c.says("end")
	logged := 0
	for _, e := range entries(t, c.log) {
		if e.tag == "F" && !strings.HasPrefix(e.text, "got ") && !strings.HasPrefix(e.text, "say: ") { // the end of a line
			logged++
		}
	}
	if logged != lines+1 {
		t.Errorf("the log has %d lines, want %d", logged, lines+1)
	}
	_ = starter.Conn.Close()
	if stdout, _, _, err := finish(slow); err == nil || !strings.Contains(err.Error(), "reads too slowly") || !strings.Contains(stdout, "\n0123456789abcdef\n") {
		t.Errorf("the slow client got %d bytes and %v", len(stdout), err)
	}
}
