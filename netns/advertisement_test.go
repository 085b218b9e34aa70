package netns

import (
	"bytes"
	"net"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A pod has no IPv6 router but the bridge: what a neighbour advertises is not heard.
func TestPodIgnoresRouterAdvertisements(t *testing.T) {
	n := dualStack(t)
	victim, attacker := attach(t, n, "a"), attach(t, n, "b")
	gateways := func() (out []string) {
		t.Helper()
		if err := in(t, victim.ns, func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V6)
			for _, r := range routes {
				if r.Gw != nil {
					out = append(out, r.Gw.String())
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	advertise := func() {
		t.Helper()
		if err := in(t, attacker.ns, sendRouterAdvertisement); err != nil {
			t.Fatal(err)
		}
	}
	heard := func() bool {
		for end := deadline(); ; {
			advertise()
			if len(gateways()) > 1 {
				return true
			}
			if !end.After(now()) {
				return false
			}
			pause()
		}
	}
	if heard() {
		t.Errorf("the pod's routers are %v, want %s alone", gateways(), gateway6)
	}
	// The counter-proof: as the kernel sets up interfaces, the attack works.
	if err := in(t, victim.ns, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_ra", []byte("1"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	if !heard() {
		t.Error("an advertisement is not heard with accept_ra=1 either: the test proves nothing")
	}
}

// sendRouterAdvertisement says "I am a router for half an hour" to all on the link
// (RFC 4861, section 4.2), from an address that can be used at once.
func sendRouterAdvertisement() error {
	eth, err := netlink.LinkByName(IfName)
	if err != nil {
		return err
	}
	router := net.ParseIP("fe80::bad")
	own := &netlink.Addr{IPNet: &net.IPNet{IP: router, Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrReplace(eth, own); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	at := func(ip net.IP) *unix.SockaddrInet6 {
		a := &unix.SockaddrInet6{ZoneId: uint32(eth.Attrs().Index)}
		copy(a.Addr[:], ip)
		return a
	}
	if err := unix.Bind(fd, at(router)); err != nil {
		return err
	}
	ra := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	return unix.Sendto(fd, ra, 0, at(net.IPv6linklocalallnodes))
}

// Turning forwarding on must not cost the host the router it has from SLAAC.
func TestForwardingKeepsAdvertisedRouter(t *testing.T) {
	dir := host(t)
	away := outside(t)
	if err := netlink.RouteDel(&netlink.Route{Gw: net.ParseIP(outsideIP6), Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}); err != nil {
		t.Fatal(err)
	}
	if err := in(t, away, func() error {
		l, err := netlink.LinkByName("wire")
		if err != nil {
			return err
		}
		return netlink.LinkSetName(l, IfName)
	}); err != nil {
		t.Fatal(err)
	}
	routers := func() (out []string) {
		t.Helper()
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.Protocol == unix.RTPROT_RA && r.Gw != nil {
				out = append(out, r.Gw.String())
			}
		}
		return out
	}
	for end := now().Add(5e9); len(routers()) == 0; pause() {
		if now().After(end) {
			t.Fatal("the host hears no router advertisement")
		}
		if err := in(t, away, sendRouterAdvertisement); err != nil {
			t.Fatal(err)
		}
	}
	before := routers()
	n := network(t, dir, nil)
	attach(t, n, "a")
	if on, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding"); err != nil || !bytes.HasPrefix(on, []byte("1")) {
		t.Errorf("forwarding is %s, %v", on, err)
	}
	if d := cmp.Diff(before, routers()); d != "" {
		t.Errorf("routers before and after the first pod: %s", d)
	}
	if d := cmp.Diff([]string{"net.ipv4.ip_forward", "net.ipv6.conf.uplink.accept_ra", "net.ipv6.conf.all.forwarding"}, n.state.Sysctls); d != "" {
		t.Errorf("recorded settings: %s", d)
	}
}
