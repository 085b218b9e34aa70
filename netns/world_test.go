package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// The test's world: "host" is the network namespace the test runs in, at
// hostIP and hostIP6; "outside" is a machine on the same wire, at outsideIP and
// outsideIP6, that knows no way to pod addresses.
const (
	hostIP     = "192.0.2.2"
	outsideIP  = "192.0.2.1"
	hostIP6    = "2001:db8::2"
	outsideIP6 = "2001:db8::1"
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
	linux.GoThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			errs <- err
			return
		}
		errs <- unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropNS(t, path) })
	return path
}

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
	linux.GoThread(func() {
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
	})
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
	up := func(name string, addrs ...string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			if a.IP.To4() == nil {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	}
	// The kernel takes no IPv6 for an address before there is a carrier, and a while after.
	local := func(addr string) error {
		for end := deadline().Add(time.Second); now().Before(end); pause() {
			if r, err := netlink.RouteGet(net.ParseIP(addr)); err == nil && len(r) > 0 && r[0].Type == unix.RTN_LOCAL {
				return nil
			}
		}
		return fmt.Errorf("%s does not become an address of this machine", addr)
	}
	if err := up("uplink", hostIP+"/24", hostIP6+"/64"); err != nil {
		t.Fatal(err)
	}
	if err := in(t, ns, func() error { return errors.Join(up("wire", outsideIP+"/24", outsideIP6+"/64"), local(outsideIP6)) }); err != nil {
		t.Fatal(err)
	}
	if err := local(hostIP6); err != nil {
		t.Fatal(err)
	}
	for _, gw := range []string{outsideIP, outsideIP6} {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}); err != nil {
			t.Fatal(err)
		}
	}
	return ns
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
		for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte("0"), 0); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

type pod struct {
	ns  string
	att *Attachment
}

func (p pod) ip() string { return p.att.IPs[0] }

// ip6 is the second address, in brackets.
func (p pod) ip6() string { return "[" + p.att.IPs[1] + "]" }

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

func shell(t testing.TB, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}
