package netns

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

const gateway6 = "fd00:1::1"

// dualStack is a network with known addresses.
func dualStack(t testing.TB) *Network {
	t.Helper()
	return network(t, host(t), func(c *Config) { c.PodCIDR = "10.88.0.0/16,fd00:1::/64" })
}

func TestDualStack(t *testing.T) {
	n := dualStack(t)
	away := outside(t)
	a, b := attach(t, n, "a"), attach(t, n, "b")
	if d := cmp.Diff([]string{"10.88.0.2", "fd00:1::2"}, a.att.IPs); d != "" {
		t.Errorf("addresses: %s", d)
	}
	serve(t, a.ns, "tcp6", ":80", "a")
	serve(t, a.ns, "udp6", ":80", "a")
	serve(t, "", "tcp6", ":81", "host")
	serve(t, away, "tcp6", ":82", "away")
	// At once: an address under duplicate address detection would be refused.
	for _, network := range []string{"tcp", "udp"} {
		want(t, network+" host to pod", ask(t, "", network, a.ip6()+":80"), "a "+gateway6)
		want(t, network+" pod to pod", ask(t, b.ns, network, a.ip6()+":80"), "a "+b.att.IPs[1])
		want(t, network+" pod to itself", ask(t, a.ns, network, a.ip6()+":80"), "a "+a.att.IPs[1])
		want(t, network+" pod to its lo", ask(t, a.ns, network, "[::1]:80"), "a ::1")
	}
	want(t, "pod to bridge", ask(t, a.ns, "tcp", "["+gateway6+"]:81"), "host "+a.att.IPs[1])
	want(t, "pod to host", ask(t, a.ns, "tcp", "["+hostIP6+"]:81"), "host "+a.att.IPs[1])
	want(t, "pod to outside is masqueraded", ask(t, a.ns, "tcp", "["+outsideIP6+"]:82"), "away "+hostIP6)
	if err := n.Check(ctx, a.att); err != nil {
		t.Error(err)
	}
	if err := in(t, a.ns, func() error {
		eth, err := netlink.LinkByName(IfName)
		if err != nil {
			return err
		}
		return netlink.AddrDel(eth, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fd00:1::2"), Mask: net.CIDRMask(64, 128)}})
	}); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(ctx, a.att); err == nil || !strings.Contains(err.Error(), "fd00:1::2/64") {
		t.Errorf("Check without the IPv6 address: %v", err)
	}
}

func TestDualStackHostPort(t *testing.T) {
	n := dualStack(t)
	away := outside(t)
	b := attach(t, n, "b")
	a := attach(t, n, "a",
		PortMapping{ContainerPort: 80, HostPort: 8080},
		PortMapping{Protocol: "UDP", ContainerPort: 53, HostPort: 8080},
		PortMapping{ContainerPort: 80, HostPort: 9001, HostIP: "::1"},
		PortMapping{ContainerPort: 80, HostPort: 9002, HostIP: hostIP6},
		PortMapping{ContainerPort: 80, HostPort: 9003, HostIP: "::"},
		PortMapping{ContainerPort: 80, HostPort: 9004, HostIP: "0.0.0.0"})
	serve(t, a.ns, "tcp", ":80", "a")
	serve(t, a.ns, "udp", ":53", "a")
	// See ownLoopback: with br_netfilter [::1] cannot work.
	shell(t, "f=/proc/sys/net/bridge/bridge-nf-call-ip6tables; [ ! -e $f ] || echo 0 >$f")
	for _, network := range []string{"tcp", "udp"} {
		want(t, network+" from outside keeps its source", ask(t, away, network, "["+hostIP6+"]:8080"), "a "+outsideIP6)
		want(t, network+" from outside, IPv4 too", ask(t, away, network, hostIP+":8080"), "a ")
		want(t, network+" from host by [::1]", ask(t, "", network, "[::1]:8080"), "a "+gateway6)
		want(t, network+" from host by its address", ask(t, "", network, "["+hostIP6+"]:8080"), "a ")
		want(t, network+" from a neighbour", ask(t, b.ns, network, "["+hostIP6+"]:8080"), "a "+gateway6)
		want(t, network+" from a neighbour by the bridge", ask(t, b.ns, network, "["+gateway6+"]:8080"), "a "+gateway6)
		want(t, network+" from itself (hairpin)", ask(t, a.ns, network, "["+hostIP6+"]:8080"), "a "+gateway6)
	}
	want(t, "host_ip ::1 from host", ask(t, "", "tcp", "[::1]:9001"), "a ")
	want(t, "host_ip ::1 by another address", ask(t, "", "tcp", "["+hostIP6+"]:9001"), "")
	want(t, "host_ip from outside", ask(t, away, "tcp", "["+hostIP6+"]:9002"), "a "+outsideIP6)
	want(t, "host_ip by [::1]", ask(t, "", "tcp", "[::1]:9002"), "")
	want(t, "host_ip :: over IPv6", ask(t, away, "tcp", "["+hostIP6+"]:9003"), "a ")
	want(t, "host_ip :: over IPv4", ask(t, away, "tcp", hostIP+":9003"), "")
	want(t, "host_ip 0.0.0.0 over IPv4", ask(t, away, "tcp", hostIP+":9004"), "a ")
	want(t, "host_ip 0.0.0.0 over IPv6", ask(t, away, "tcp", "["+hostIP6+"]:9004"), "")
	detach(t, n, a)
	want(t, "after detach", ask(t, away, "tcp", "["+hostIP6+"]:8080"), "")
	for _, set := range []string{"hostport6", "hostport_ip6", "hostport_flow6"} {
		shell(t, "! nft list set inet cri-mini0 "+set+" 2>/dev/null | grep elements; ! nft list map inet cri-mini0 "+set+" 2>/dev/null | grep elements")
	}
}

// With br_netfilter, which kube-proxy needs, all but [::1] answers.
func TestDualStackHostPortWithBridgeNetfilter(t *testing.T) {
	n := dualStack(t)
	const key = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
	if err := os.WriteFile(key, []byte("1"), 0); err != nil {
		t.Skip("needs the kernel module br_netfilter:", err)
	}
	a, b := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8080}), attach(t, n, "b")
	outside(t)
	serve(t, a.ns, "tcp", ":80", "a")
	want(t, "from host by its address", ask(t, "", "tcp", "["+hostIP6+"]:8080"), "a ")
	want(t, "from a neighbour", ask(t, b.ns, "tcp", "["+hostIP6+"]:8080"), "a "+gateway6)
	want(t, "from itself", ask(t, a.ns, "tcp", "["+hostIP6+"]:8080"), "a "+gateway6)
	want(t, "pod to pod", ask(t, b.ns, "tcp", a.ip6()+":80"), "a "+b.att.IPs[1])
	want(t, "IPv4 by 127.0.0.1", ask(t, "", "tcp", "127.0.0.1:8080"), "a ")
}

func TestDefaultIPv6Network(t *testing.T) {
	dir := host(t)
	n := network(t, dir, nil)
	a := attach(t, n, "a")
	if len(a.att.IPs) != 2 || a.att.IPs[0] != "10.88.0.2" || !strings.HasPrefix(a.att.IPs[1], "fd") || !strings.HasSuffix(a.att.IPs[1], "::2") {
		t.Fatalf("addresses %v, want 10.88.0.2 and a unique local one that ends in ::2", a.att.IPs)
	}
	own := netip.MustParseAddr(a.att.IPs[1])
	if b := attach(t, network(t, dir, nil), "b"); !netip.PrefixFrom(own, 64).Masked().Contains(netip.MustParseAddr(b.att.IPs[1])) {
		t.Errorf("after a restart the network is another one: %v, then %v", a.att.IPs, b.att.IPs)
	}
	if other := network(t, t.TempDir(), nil); other.ula == n.ula {
		t.Errorf("two nodes have the same network %s", n.ula)
	}
	only4 := func(sysctl string) {
		t.Helper()
		att, err := n.Prepare(Request{PodID: "c", NetnsPath: newNS(t, "c"), Sysctls: map[string]string{sysctl: "1"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := in(t, att.NetnsPath, func() error {
			return os.WriteFile("/proc/sys/"+strings.ReplaceAll(sysctl, ".", "/"), []byte("1"), 0)
		}); err != nil {
			t.Fatal(err)
		}
		if err := n.Attach(ctx, att); err != nil {
			t.Fatal(err)
		}
		if len(att.IPs) != 1 {
			t.Errorf("a pod with %s=1 has addresses %v", sysctl, att.IPs)
		}
		if err := n.Detach(ctx, att); err != nil {
			t.Fatal(err)
		}
	}
	only4("net.ipv6.conf.all.disable_ipv6")
	only4("net.ipv6.conf.default.disable_ipv6")
}

func TestHostWithoutIPv6(t *testing.T) {
	const key = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
	dir := host(t)
	if err := os.WriteFile(key, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(key, []byte("0"), 0) })
	n := network(t, dir, nil)
	if a := attach(t, n, "a"); len(a.att.IPs) != 1 {
		t.Errorf("addresses %v, want IPv4 alone", a.att.IPs)
	}
	if s := n.Status(ctx); !s.Ready {
		t.Errorf("status %+v", s)
	}
	if err := n.SetPodCIDR("10.88.0.0/16,fd00:1::/64"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s := n.Status(ctx); s.Ready || !strings.Contains(s.Message, "fd00:1::/64: IPv6 is turned off by net.ipv6.conf.default.disable_ipv6") {
			t.Errorf("status %+v, want not ready with the setting", s)
		}
	}
	if _, err := tryAttach(t, n, "b"); err == nil || !strings.Contains(err.Error(), "net.ipv6.conf.default.disable_ipv6") {
		t.Errorf("attach: %v", err)
	}
}

// A host may pass its own disable_ipv6 on to new namespaces.
func TestInheritedDisableIPv6(t *testing.T) {
	n := dualStack(t)
	ns := newNS(t, "a")
	if err := in(t, ns, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	att, err := n.Prepare(Request{PodID: "a", NetnsPath: ns})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Attach(ctx, att); err != nil {
		t.Fatal(err)
	}
	serve(t, ns, "tcp6", ":80", "a")
	want(t, "host to pod", ask(t, "", "tcp", "["+att.IPs[1]+"]:80"), "a ")
}

func TestIPv6Only(t *testing.T) {
	n := dualStack(t)
	if err := n.SetPodCIDR("fd00:2::/112"); err != nil {
		t.Fatal(err)
	}
	away := outside(t)
	a := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8080})
	b := attach(t, n, "b")
	if d := cmp.Diff([]string{"fd00:2::2"}, a.att.IPs); d != "" {
		t.Fatal(d)
	}
	serve(t, a.ns, "tcp6", ":80", "a")
	want(t, "pod to pod", ask(t, b.ns, "tcp", "[fd00:2::2]:80"), "a fd00:2::3")
	want(t, "host port from outside", ask(t, away, "tcp", "["+hostIP6+"]:8080"), "a "+outsideIP6)
	want(t, "host port over IPv4", ask(t, away, "tcp", hostIP+":8080"), "")
	_, err := tryAttach(t, n, "c", PortMapping{ContainerPort: 80, HostPort: 8081, HostIP: hostIP})
	if err == nil || !strings.Contains(err.Error(), "the pod has no address of the family of "+hostIP) {
		t.Errorf("host_ip of the other family: %v", err)
	}
	if err := n.SetPodCIDR("fd00:2::/112,10.5.0.0/24"); err != nil {
		t.Fatal(err)
	}
	if d := attach(t, n, "d"); !strings.HasPrefix(d.att.IPs[0], "fd00:2::") || !strings.HasPrefix(d.att.IPs[1], "10.5.0.") {
		t.Errorf("addresses %v, want IPv6 first, as the pod CIDR has it", d.att.IPs)
	}
}
