package api

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/test/stream"
)

func (p *pod) forward(name string) *stream.Forwarding {
	p.n.t.Helper()
	r, err := p.n.Runtime.PortForward(p.n.ctx(), &criapi.PortForwardRequest{PodSandboxId: p.id, Port: []int32{8080}})
	if err != nil {
		p.n.t.Fatalf("PortForward: %v", err)
	}
	f, err := stream.Forwards[name](r.Url)
	if err != nil {
		p.n.t.Fatalf("PortForward: %v", err)
	}
	return f
}

// listen listens where a program of the pod would: in its network namespace. Who connects gets what answer does.
func (p *pod) listen(addr string, answer func(*net.TCPConn)) {
	p.n.t.Helper()
	made := make(chan net.Listener, 1)
	linux.GoThread(func() {
		if p.config == nil || p.config.Linux.SecurityContext.NamespaceOptions.Network != criapi.NamespaceMode_NODE {
			enter(p.n.t, filepath.Join(p.n.Run, "netns", p.id))
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			p.n.t.Error(err)
		}
		made <- l
	})
	l := <-made
	if l == nil {
		p.n.t.FailNow()
	}
	p.n.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c.(*net.TCPConn))
			}()
		}
	}()
}

func enter(t testing.TB, netns string) {
	f, err := os.Open(netns)
	if err == nil {
		defer f.Close()
		err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestPortForward: megabytes both ways, the client's end of file reaches the pod and the pod's the client, several
// connections by one session, on both loopback addresses, and words for a port where nobody listens.
func TestPortForward(t *testing.T) {
	n := start(t)
	p := n.runPod("forward")
	echo := func(c *net.TCPConn) { _, _ = io.Copy(c, c) }
	p.listen("127.0.0.1:8080", echo)
	p.listen("[::1]:8081", echo)
	p.listen("127.0.0.1:8082", func(c *net.TCPConn) { _, _ = io.WriteString(c, "all that I say") }) // and goes
	p.listen("127.0.0.1:8083", func(c *net.TCPConn) {                                               // after the end of file
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprint(c, len(b))
	})
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	for name := range stream.Forwards {
		t.Run(name, func(t *testing.T) {
			f := (&pod{n: &node{n.Daemon, t}, id: p.id}).forward(name)
			defer f.Close()
			for _, x := range []struct {
				port int
				want string
			}{{8080, string(data)}, {8081, string(data)}, {8080, string(data)}, {8082, "all that I say"}, {8083, "3200000"}} {
				if got := through(t, f, x.port, data); string(got) != x.want {
					t.Errorf("port %d gave %d bytes, want %d", x.port, len(got), len(x.want))
				}
			}
			_, errs, err := f.Dial(9)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, errs, "connection refused")
		})
	}
}

// TestPortForwardSlowReader: the pod waits for the client, the daemon keeps nothing of 200 MB, and no byte is lost.
func TestPortForwardSlowReader(t *testing.T) {
	n := start(t)
	p := n.runPod("forward-slow")
	const size = 200_000_000
	p.listen("127.0.0.1:8080", func(c *net.TCPConn) { _, _ = io.CopyN(c, zeros{}, size) })
	for name := range stream.Forwards {
		t.Run(name, func(t *testing.T) {
			before := n.memory()
			f := (&pod{n: &node{n.Daemon, t}, id: p.id}).forward(name)
			defer f.Close()
			conn, _, err := f.Dial(8080)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // what is not kept for the client cannot come later either
			if more := n.memory() - before; more > 32<<20 {
				t.Errorf("the daemon has grown by %d MiB for a client that does not read", more>>20)
			}
			if got, err := io.Copy(io.Discard, conn); got != size || err != nil {
				t.Errorf("%d of %d bytes, %v", got, size, err)
			}
		})
	}
}

// zeros never end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestPortForwardWhoseClientDies: what it left behind in the pod meets the end of its connection, also while nobody
// there reads.
func TestPortForwardWhoseClientDies(t *testing.T) {
	n := start(t)
	p := n.runPod("forward-dies")
	gone := make(chan struct{}, 1)
	p.listen("127.0.0.1:8080", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "ready")
		for { // does not read; what it writes fails once the other side is closed
			if _, err := c.Write([]byte{0}); err != nil {
				gone <- struct{}{}
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	for name := range stream.Forwards {
		t.Run(name, func(t *testing.T) {
			f := (&pod{n: &node{n.Daemon, t}, id: p.id}).forward(name)
			conn, _, err := f.Dial(8080)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, conn, "ready")
			_ = f.Conn.Close()
			f.Close()
			select {
			case <-gone:
			case <-time.After(time.Minute):
				t.Error("the connection to the pod is open a minute after the client's death")
			}
		})
	}
}

// through sends data to what echoes it and reads the answer to its end. What is said of errors, of a port that closes while
// it is sent to, is read too: the library lets no other stream in while one is not read.
func through(t *testing.T, f *stream.Forwarding, port int, data []byte) []byte {
	t.Helper()
	conn, errs, err := f.Dial(port)
	if err != nil {
		t.Fatal(err)
	}
	go readAll(errs)
	go func() {
		_, _ = conn.Write(data)
		_ = conn.Close()
	}()
	return readAll(conn)
}

// TestPortForwardHostNetwork: the pod's ports are the node's.
func TestPortForwardHostNetwork(t *testing.T) {
	n := start(t)
	p := n.runPod("forward-host", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	})
	p.listen("127.0.0.1:8099", func(c *net.TCPConn) { _, _ = io.WriteString(c, "the node") })
	f := p.forward("SPDY")
	defer f.Close()
	conn, _, err := f.Dial(8099)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(conn); string(got) != "the node" {
		t.Errorf("read %q", got)
	}
}
