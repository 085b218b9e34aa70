package netns

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The test's world: "host" is the network namespace the test runs in, at
// hostIP; "outside" is a machine on the same wire, at outsideIP, that knows no
// way to pod addresses.
const (
	hostIP    = "192.0.2.2"
	outsideIP = "192.0.2.1"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
}

// newNS makes a network namespace and binds it to a file.
func newNS(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	go func() { // never unlocked: the thread dies with the goroutine
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			errs <- err
			return
		}
		errs <- unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropNS(t, path) })
	return path
}

// servers are the sockets that tests hold in namespaces; a socket keeps its
// namespace alive.
var servers sync.Map // path → []io.Closer

func dropNS(t testing.TB, path string) {
	if cs, ok := servers.LoadAndDelete(path); ok {
		for _, c := range cs.([]io.Closer) {
			c.Close()
		}
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		t.Errorf("drop %s: %v", path, err)
	}
}

// in runs f in a namespace; "" is the host.
func in(t testing.TB, ns string, f func() error) error {
	t.Helper()
	if ns == "" {
		return f()
	}
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := os.Open(ns)
		if err != nil {
			errs <- err
			return
		}
		defer fd.Close()
		if err := unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err != nil {
			errs <- fmt.Errorf("enter %s: %w", ns, err)
			return
		}
		errs <- f()
	}()
	return <-errs
}

// outside makes the other machine and the wire, once per test.
func outside(t testing.TB) string {
	t.Helper()
	ns := newNS(t, "outside")
	fd, err := os.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags = "uplink", net.FlagUp
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "wire", PeerNamespace: netlink.NsFd(fd.Fd())}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(&netlink.Dummy{LinkAttrs: attrs}) })
	up := func(name, addr string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}
	if err := up("uplink", hostIP+"/24"); err != nil {
		t.Fatal(err)
	}
	if err := in(t, ns, func() error { return up("wire", outsideIP+"/24") }); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(outsideIP)}); err != nil {
		t.Fatal(err)
	}
	return ns
}

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

// runDir is on the tests' own tmpfs, beside the state in dir.
func runDir(dir string) string {
	if os.Getuid() != 0 {
		return dir
	}
	return filepath.Join("/run", filepath.Base(filepath.Dir(dir)))
}

// network opens a Network with its state in dir.
func network(t testing.TB, dir string, change func(*Config)) *Network {
	t.Helper()
	cfg := Config{
		Mode: ModeBuiltin, StateDir: dir, RunDir: runDir(dir), ConfDir: filepath.Join(dir, "net.d"),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if change != nil {
		change(&cfg)
	}
	n, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// host gives a test a clean host: its bridge and table are removed at the end.
func host(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	t.Cleanup(func() {
		n := network(t, dir, nil)
		if err := n.GC(context.Background(), nil); err != nil {
			t.Error(err)
		}
		if err := n.plugin.Remove(); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

type pod struct {
	ns  string
	att *Attachment
}

func (p pod) ip() string { return p.att.IPs[0] }

// attach makes a pod and connects it.
func attach(t testing.TB, n *Network, id string, ports ...PortMapping) pod {
	t.Helper()
	p, err := tryAttach(t, n, id, ports...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryAttach(t testing.TB, n *Network, id string, ports ...PortMapping) (pod, error) {
	t.Helper()
	ns := newNS(t, id)
	att, err := n.Prepare(Request{PodID: id, Namespace: "default", Name: id, UID: "uid-" + id, NetnsPath: ns, Ports: ports})
	if err != nil {
		return pod{}, err
	}
	return pod{ns, att}, n.Attach(context.Background(), att)
}

func detach(t testing.TB, n *Network, p pod) {
	t.Helper()
	if err := n.Detach(context.Background(), p.att); err != nil {
		t.Fatal(err)
	}
	dropNS(t, p.ns)
	if err := n.WaitGone(context.Background(), p.att); err != nil {
		t.Fatal(err)
	}
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

func shell(t testing.TB, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}
