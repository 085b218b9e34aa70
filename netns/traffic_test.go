package netns

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// servers are the sockets that tests hold in namespaces; a socket keeps its
// namespace alive.
var servers sync.Map // path → []io.Closer

// serve answers each connection (or datagram) with "name <client's address>".
func serve(t testing.TB, ns, network, addr, name string) {
	t.Helper()
	var c io.Closer
	err := in(t, ns, func() error {
		if strings.HasPrefix(network, "udp") {
			pc, err := net.ListenPacket(network, addr)
			if err != nil {
				return err
			}
			c = pc
			go func() {
				buf := make([]byte, 512)
				for {
					_, from, err := pc.ReadFrom(buf)
					if err != nil {
						return
					}
					host, _, _ := net.SplitHostPort(from.String())
					_, _ = pc.WriteTo([]byte(name+" "+host), from)
				}
			}()
			return nil
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		c = l
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
				fmt.Fprint(conn, name+" "+host)
				conn.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if ns == "" {
		t.Cleanup(func() { c.Close() })
		return
	}
	cs, _ := servers.LoadOrStore(ns, []io.Closer(nil))
	servers.Store(ns, append(cs.([]io.Closer), c))
}

// ask returns what a server says, "" if it is not reached within a while.
func ask(t testing.TB, ns, network, addr string) string {
	t.Helper()
	var answer []byte
	_ = in(t, ns, func() error {
		conn, err := net.DialTimeout(network, addr, 700*time.Millisecond)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(700 * time.Millisecond))
		if strings.HasPrefix(network, "udp") {
			if _, err := conn.Write([]byte("?")); err != nil {
				return err
			}
			buf := make([]byte, 512)
			n, err := conn.Read(buf)
			answer = buf[:n]
			return err
		}
		answer, err = io.ReadAll(conn)
		return err
	})
	return string(answer)
}

// want checks an answer by its prefix; "" wants none.
func want(t testing.TB, what, got, prefix string) {
	t.Helper()
	if prefix == "" && got != "" {
		t.Errorf("%s: reached %q, want nothing", what, got)
	}
	if !strings.HasPrefix(got, prefix) {
		t.Errorf("%s: got %q, want %q", what, got, prefix)
	}
}

func deadline() time.Time { return time.Now().Add(700 * time.Millisecond) }

func now() time.Time { return time.Now() }

func pause() { time.Sleep(20 * time.Millisecond) }
