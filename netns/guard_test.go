package netns

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

func setLocalnet(value string, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte(value), 0))
	}
	return errors.Join(errs...)
}

// leakLoopback makes a machine send 127.0.0.0/8 through an interface, as whoever
// has NET_ADMIN on it can.
func leakLoopback(iface, gateway string) error {
	if err := setLocalnet("1", "all", iface); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if err := netlink.AddrDel(lo, &addr); err != nil {
			return err
		}
	}
	out, err := netlink.LinkByName(iface)
	if err != nil {
		return err
	}
	_, dst, _ := net.ParseCIDR("127.0.0.0/8")
	return netlink.RouteAdd(&netlink.Route{LinkIndex: out.Attrs().Index, Dst: dst, Gw: net.ParseIP(gateway)})
}

func flushGuard(t testing.TB) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "cri-mini0", Family: nftables.TableFamilyINet}
	c.FlushChain(&nftables.Chain{Name: "guard", Table: table})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// route_localnet on the bridge must not open the host's loopback to pods.
func TestPodCannotReachHostLoopback(t *testing.T) {
	n := network(t, host(t), nil)
	a := attach(t, n, "a")
	serve(t, "", "tcp", "127.0.0.1:6443", "secret")
	if err := in(t, a.ns, func() error { return leakLoopback(IfName, "10.88.0.1") }); err != nil {
		t.Fatal(err)
	}
	want(t, "with the guard", ask(t, a.ns, "tcp", "127.0.0.1:6443"), "")
	flushGuard(t)
	want(t, "without the guard (this proves the attack)", ask(t, a.ns, "tcp", "127.0.0.1:6443"), "secret ")
}

// Nor to the node's neighbours: the bridge alone has route_localnet, and where
// kube-proxy has set it for all interfaces the guard holds.
func TestNeighbourCannotReachHostLoopback(t *testing.T) {
	n := network(t, host(t), nil)
	away := outside(t)
	a := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8080, HostIP: "127.0.0.1"}, PortMapping{Protocol: "UDP", ContainerPort: 53, HostPort: 5353, HostIP: "127.0.0.1"})
	serve(t, "", "tcp", "127.0.0.1:6443", "secret")
	serve(t, "", "udp", "127.0.0.1:6443", "secret")
	serve(t, a.ns, "tcp4", ":80", "a")
	serve(t, a.ns, "udp4", ":53", "a")
	closed := func(how string) {
		t.Helper()
		for _, tc := range [][2]string{{"tcp", "127.0.0.1:6443"}, {"udp", "127.0.0.1:6443"}, {"tcp", "127.0.0.1:8080"}, {"udp", "127.0.0.1:5353"}, {"tcp", "127.9.9.9:8080"}} {
			want(t, how+", "+tc[0]+" "+tc[1], ask(t, away, tc[0], tc[1]), "")
		}
		want(t, how+", the host itself", ask(t, "", "tcp", "127.0.0.1:8080"), "a ")
	}
	if err := in(t, away, func() error { return leakLoopback("wire", hostIP) }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"all": "0", "uplink": "0", "cri-mini0": "1"} {
		got, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/route_localnet")
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("route_localnet of %s is %s, %v; want %s", name, got, err, want)
		}
	}
	closed("as the host is")
	if err := setLocalnet("1", "all"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = setLocalnet("0", "all") })
	closed("route_localnet for all")
	flushGuard(t)
	want(t, "without the guard (this proves the attack)", ask(t, away, "tcp", "127.0.0.1:6443"), "secret ")
	want(t, "without the guard, a host port of 127.0.0.1", ask(t, away, "tcp", "127.0.0.1:8080"), "a ")
}

// ::1 on a wire is dropped by the kernel, the route of [::1] host ports notwithstanding.
func TestHostLoopbackIPv6IsClosed(t *testing.T) {
	n := dualStack(t)
	a := attach(t, n, "a")
	away := outside(t)
	serve(t, "", "tcp6", "[::1]:6443", "secret")
	leak := func(ns, iface, gateway string) {
		t.Helper()
		if err := in(t, ns, func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetDown(lo); err != nil {
				return err
			}
			out, err := netlink.LinkByName(iface)
			if err != nil {
				return err
			}
			_, dst, _ := net.ParseCIDR("::1/128")
			return netlink.RouteAdd(&netlink.Route{LinkIndex: out.Attrs().Index, Dst: dst, Gw: net.ParseIP(gateway)})
		}); err != nil {
			t.Fatal(err)
		}
	}
	leak(a.ns, IfName, gateway6)
	leak(away, "wire", hostIP6)
	want(t, "from a pod", ask(t, a.ns, "tcp", "[::1]:6443"), "")
	want(t, "from a neighbour", ask(t, away, "tcp", "[::1]:6443"), "")
	want(t, "from the host", ask(t, "", "tcp", "[::1]:6443"), "secret ::1")
}
