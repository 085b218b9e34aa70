package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/cri-mini/cri-mini/netns/bridge"
	"github.com/cri-mini/cri-mini/netns/ipam"
	"github.com/cri-mini/cri-mini/netns/nat"
)

var ctx = context.Background()

func hostLink(t testing.TB, p pod) (netlink.Link, error) {
	t.Helper()
	return netlink.LinkByName(bridge.LinkName(ipam.Owner{Pod: p.att.PodID, IfName: IfName}))
}

func TestPodReachesAndIsReached(t *testing.T) {
	n := network(t, host(t), nil)
	away := outside(t)
	a, b := attach(t, n, "a"), attach(t, n, "b")
	if a.ip() != "10.88.0.2" || b.ip() != "10.88.0.3" {
		t.Errorf("addresses %s and %s, want 10.88.0.2 and .3", a.ip(), b.ip())
	}
	serve(t, a.ns, "tcp", ":80", "a")
	serve(t, "", "tcp", ":81", "host")
	serve(t, away, "tcp", ":82", "away")
	want(t, "host to pod", ask(t, "", "tcp", a.ip()+":80"), "a 10.88.0.1")
	want(t, "pod to pod", ask(t, b.ns, "tcp", a.ip()+":80"), "a "+b.ip())
	want(t, "pod to itself", ask(t, a.ns, "tcp", a.ip()+":80"), "a "+a.ip())
	want(t, "pod to its lo", ask(t, a.ns, "tcp", "127.0.0.1:80"), "a 127.0.0.1")
	want(t, "pod to bridge", ask(t, a.ns, "tcp", "10.88.0.1:81"), "host "+a.ip())
	want(t, "pod to host", ask(t, a.ns, "tcp", hostIP+":81"), "host "+a.ip())
	want(t, "pod to outside is masqueraded", ask(t, a.ns, "tcp", outsideIP+":82"), "away "+hostIP)
	if err := n.Check(ctx, a.att); err != nil {
		t.Error(err)
	}
	br, err := netlink.LinkByName("cri-mini0")
	if err != nil || br.Attrs().HardwareAddr.String() != bridge.Mac.String() {
		t.Errorf("bridge %v, %v: want address %s", br, err, bridge.Mac)
	}
	l, err := hostLink(t, a)
	if err != nil || l.Attrs().Alias != "cri-mini:a@eth0" {
		t.Errorf("host-side veth %v, %v: want alias cri-mini:a@eth0", l, err)
	}
	if state, err := os.ReadFile(filepath.Join(n.cfg.StateDir, "state.json")); !strings.Contains(string(state), `"sysctls":["net.ipv4.ip_forward"]`) {
		t.Errorf("ip_forward was turned on, the state says %s, %v", state, err)
	}
	if s := n.Status(ctx); !s.Ready || s.Mode != ModeBuiltin || s.Message != "" {
		t.Errorf("status %+v, want ready and silent", s)
	}
	detach(t, n, a)
	if _, err := hostLink(t, a); err == nil {
		t.Error("WaitGone returned, the veth is there")
	}
	detach(t, n, a) // again: no error
}

func TestAttachIsIdempotent(t *testing.T) {
	dir := host(t)
	n := network(t, dir, nil)
	a := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8080})
	first, _ := json.Marshal(a.att)
	before, err := hostLink(t, a)
	if err != nil {
		t.Fatal(err)
	}
	n = network(t, dir, nil) // a daemon killed right after Attach
	if err := n.Attach(ctx, a.att); err != nil {
		t.Fatal(err)
	}
	if second, _ := json.Marshal(a.att); string(second) != string(first) {
		t.Errorf("second Attach:\n%s\nwant\n%s", second, first)
	}
	if after, err := hostLink(t, a); err != nil || after.Attrs().Index != before.Attrs().Index {
		t.Errorf("the veth was made anew: %v, %v", after, err)
	}
	// Cut off between veth and address: made anew.
	if err := in(t, a.ns, func() error {
		l, err := netlink.LinkByName(IfName)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	}); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(ctx, a.att); err == nil {
		t.Error("Check passes with eth0 down")
	}
	if err := n.Attach(ctx, a.att); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(ctx, a.att); err != nil {
		t.Error(err)
	}
}

func TestHostPort(t *testing.T) {
	n := network(t, host(t), nil)
	away := outside(t)
	b := attach(t, n, "b")
	a := attach(t, n, "a",
		PortMapping{ContainerPort: 80, HostPort: 8080},
		PortMapping{ContainerPort: 80, HostPort: 8080, HostIP: "0.0.0.0"}, // the same again
		PortMapping{Protocol: "UDP", ContainerPort: 53, HostPort: 8080},
		PortMapping{ContainerPort: 80, HostPort: 9001, HostIP: "127.0.0.1"},
		PortMapping{ContainerPort: 80, HostPort: 9002, HostIP: hostIP},
		PortMapping{Protocol: "TCP", ContainerPort: 7070})
	serve(t, a.ns, "tcp4", ":80", "a")
	serve(t, a.ns, "udp4", ":53", "a")
	for _, network := range []string{"tcp", "udp"} {
		want(t, network+" from outside keeps its source", ask(t, away, network, hostIP+":8080"), "a "+outsideIP)
		want(t, network+" from host by 127.0.0.1", ask(t, "", network, "127.0.0.1:8080"), "a 10.88.0.1")
		want(t, network+" from host by 127.8.8.8", ask(t, "", network, "127.8.8.8:8080"), "a 10.88.0.1")
		want(t, network+" from host by its address", ask(t, "", network, hostIP+":8080"), "a ")
		want(t, network+" from a neighbour", ask(t, b.ns, network, hostIP+":8080"), "a 10.88.0.1")
		want(t, network+" from a neighbour by the bridge", ask(t, b.ns, network, "10.88.0.1:8080"), "a 10.88.0.1")
		want(t, network+" from itself (hairpin)", ask(t, a.ns, network, hostIP+":8080"), "a 10.88.0.1")
	}
	want(t, "host_ip 127.0.0.1 from host", ask(t, "", "tcp", "127.0.0.1:9001"), "a ")
	want(t, "host_ip 127.0.0.1 by another address", ask(t, "", "tcp", hostIP+":9001"), "")
	want(t, "host_ip 127.0.0.1 from outside", ask(t, away, "tcp", hostIP+":9001"), "")
	want(t, "host_ip from outside", ask(t, away, "tcp", hostIP+":9002"), "a "+outsideIP)
	want(t, "host_ip by 127.0.0.1", ask(t, "", "tcp", "127.0.0.1:9002"), "")
	want(t, "host_port 0", ask(t, "", "tcp", "127.0.0.1:7070"), "")

	_, err := tryAttach(t, n, "c", PortMapping{ContainerPort: 1, HostPort: 8080})
	if err == nil || !strings.Contains(err.Error(), "host port *:8080/tcp is held by pod a@eth0") {
		t.Errorf("second pod with the port: %v, want an error that names the port and the holder", err)
	}
	if files, _ := filepath.Glob(filepath.Join(n.cfg.RunDir, "leases", "c@*")); len(files) > 0 {
		t.Errorf("the refused pod has a lease: %v", files)
	}
	detach(t, n, a)
	want(t, "after detach", ask(t, "", "tcp", "127.0.0.1:8080"), "")
	d := attach(t, n, "d", PortMapping{ContainerPort: 81, HostPort: 8080}, PortMapping{Protocol: "UDP", ContainerPort: 54, HostPort: 8080})
	serve(t, d.ns, "tcp4", ":81", "d")
	serve(t, d.ns, "udp4", ":54", "d")
	want(t, "tcp port of a gone pod", ask(t, "", "tcp", "127.0.0.1:8080"), "d ")
	want(t, "udp port of a gone pod", ask(t, "", "udp", "127.0.0.1:8080"), "d ")
}

// A UDP client that never pauses must follow the port to the next pod.
func TestUDPHostPortFollowsPod(t *testing.T) {
	n := network(t, host(t), nil)
	away := outside(t)
	udp := PortMapping{Protocol: "UDP", ContainerPort: 53, HostPort: 5353}
	a := attach(t, n, "a", udp)
	serve(t, a.ns, "udp4", ":53", "a")
	var conn net.Conn
	err := in(t, away, func() (err error) {
		conn, err = net.Dial("udp", hostIP+":5353")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func() string {
		_, _ = conn.Write([]byte("?"))
		buf := make([]byte, 100)
		_ = conn.SetReadDeadline(deadline())
		k, _ := conn.Read(buf)
		return string(buf[:k])
	}
	want(t, "first pod", say(), "a ")
	detach(t, n, a)
	b := attach(t, n, "b", udp)
	serve(t, b.ns, "udp4", ":53", "b")
	want(t, "same client, next pod", say(), "b ")
}

// route_localnet on the bridge must not open the host's loopback to pods.
func TestNeighbourCannotReachHostLoopback(t *testing.T) {
	n := network(t, host(t), nil)
	a := attach(t, n, "a")
	serve(t, "", "tcp", "127.0.0.1:6443", "secret")
	// What a pod with NET_ADMIN can do: send 127.0.0.1 out of eth0.
	err := in(t, a.ns, func() error {
		for _, key := range []string{"all", "eth0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+key+"/route_localnet", []byte("1"), 0); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			if err := netlink.AddrDel(lo, &addr); err != nil {
				return err
			}
		}
		eth, err := netlink.LinkByName(IfName)
		if err != nil {
			return err
		}
		_, dst, _ := net.ParseCIDR("127.0.0.0/8")
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: dst, Gw: net.ParseIP("10.88.0.1")})
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "with the guard", ask(t, a.ns, "tcp", "127.0.0.1:6443"), "")
	// The counter-proof: without the guard chain the attack works.
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "cri-mini0", Family: nftables.TableFamilyINet}
	c.FlushChain(&nftables.Chain{Name: "guard", Table: table})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	want(t, "without the guard (this proves the attack)", ask(t, a.ns, "tcp", "127.0.0.1:6443"), "secret ")
}

func TestRestartAndFlushedRuleset(t *testing.T) {
	dir := host(t)
	n := network(t, dir, nil)
	a := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8080})
	serve(t, a.ns, "tcp4", ":80", "a")
	flush := func() {
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		c.FlushRuleset()
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	want(t, "flushed", ask(t, "", "tcp", "127.0.0.1:8080"), "")
	network(t, dir, nil) // restart
	want(t, "flushed, then restarted", ask(t, "", "tcp", "127.0.0.1:8080"), "a ")
	flush()
	n = network(t, dir, nil)
	flush()
	if s := n.Status(ctx); !s.Ready {
		t.Errorf("status %+v", s)
	}
	want(t, "flushed, then asked for status", ask(t, "", "tcp", "127.0.0.1:8080"), "a ")
	flush()
	b := attach(t, n, "b", PortMapping{ContainerPort: 80, HostPort: 8081})
	serve(t, b.ns, "tcp4", ":80", "b")
	want(t, "flushed, then another pod", ask(t, "", "tcp", "127.0.0.1:8080"), "a ")
	want(t, "the other pod", ask(t, "", "tcp", "127.0.0.1:8081"), "b ")
	flush()
	detach(t, n, b)
	want(t, "flushed, then detached the other", ask(t, "", "tcp", "127.0.0.1:8080"), "a ")
	br, err := netlink.LinkByName("cri-mini0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(br); err != nil {
		t.Fatal(err)
	}
	if s := n.Status(ctx); !s.Ready {
		t.Errorf("status %+v", s)
	}
	want(t, "bridge deleted, then asked for status", ask(t, "", "tcp", "127.0.0.1:8080"), "a ")
	br, err = netlink.LinkByName("cri-mini0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(br); err != nil {
		t.Fatal(err)
	}
	c := attach(t, n, "c")
	serve(t, c.ns, "tcp4", ":80", "c")
	want(t, "bridge deleted, then another pod", ask(t, "", "tcp", c.ip()+":80"), "c ")
}

func TestDetachWithoutNamespace(t *testing.T) {
	dir := host(t)
	n := network(t, dir, nil)
	a := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8080})
	record, _ := json.Marshal(a.att)
	dropNS(t, a.ns)
	if err := os.Remove(a.ns); err != nil {
		t.Fatal(err)
	}
	n = network(t, dir, nil)
	var att Attachment
	if err := json.Unmarshal(record, &att); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.Detach(ctx, &att); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.WaitGone(ctx, &att); err != nil {
		t.Fatal(err)
	}
	for _, glob := range []string{"leases/*@*", "results/*"} {
		if files, _ := filepath.Glob(filepath.Join(runDir(dir), glob)); len(files) > 0 {
			t.Errorf("left: %v", files)
		}
	}
	if _, err := nodeMapped(); err != nil {
		t.Error(err)
	}
}

// nodeMapped fails if the table still has a mapping.
func nodeMapped() (int, error) {
	c, err := nftables.New()
	if err != nil {
		return 0, err
	}
	table := &nftables.Table{Name: "cri-mini0", Family: nftables.TableFamilyINet}
	for _, name := range []string{"hostport", "hostport_ip", "hostport_flow"} {
		set, err := c.GetSetByName(table, name)
		if err != nil {
			return 0, fmt.Errorf("set %s: %w", name, err)
		}
		els, err := c.GetSetElements(set)
		if err != nil || len(els) > 0 {
			return len(els), fmt.Errorf("set %s has %d elements left, err %w", name, len(els), err)
		}
	}
	return 0, nil
}

func TestWaitGoneDeletesHeldVeth(t *testing.T) {
	n := network(t, host(t), nil)
	a := attach(t, n, "a")
	if err := n.Detach(ctx, a.att); err != nil {
		t.Fatal(err)
	}
	o := ipam.Owner{Pod: "a", IfName: IfName}
	if err := n.plugin.WaitGone(ctx, o, 50e6); err != nil { // the namespace is still there
		t.Fatal(err)
	}
	if _, err := hostLink(t, a); err == nil {
		t.Error("the veth is still there")
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	b := attach(t, n, "b")
	if err := n.WaitGone(short, b.att); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitGone with ended context: %v", err)
	}
}

func TestSetPodCIDR(t *testing.T) {
	dir := host(t)
	n := network(t, dir, nil)
	away := outside(t)
	a := attach(t, n, "a")
	if err := n.SetPodCIDR("10.244.1.0/24,fd00:1::/64"); err != nil {
		t.Fatal(err)
	}
	n = network(t, dir, nil)
	b := attach(t, n, "b")
	if !strings.HasPrefix(b.ip(), "10.244.1.") {
		t.Errorf("address %s is not of the new pod CIDR", b.ip())
	}
	serve(t, a.ns, "tcp4", ":80", "a")
	serve(t, b.ns, "tcp4", ":80", "b")
	serve(t, away, "tcp4", ":80", "away")
	want(t, "old to new", ask(t, a.ns, "tcp", b.ip()+":80"), "b "+a.ip())
	want(t, "new to old", ask(t, b.ns, "tcp", a.ip()+":80"), "a "+b.ip())
	want(t, "new to outside", ask(t, b.ns, "tcp", outsideIP+":80"), "away "+hostIP)
	want(t, "old to outside", ask(t, a.ns, "tcp", outsideIP+":80"), "away "+hostIP)
	for _, bad := range []string{"10.244.1.0", "10.244.1.7/24", "fd00::/64", "10.0.0.0/31", "10.1.0.0/24,10.2.0.0/24"} {
		if err := n.SetPodCIDR(bad); err == nil || !strings.Contains(err.Error(), strings.Split(bad, ",")[0]) {
			t.Errorf("SetPodCIDR(%q): %v, want an error that quotes it", bad, err)
		}
	}
}

func TestPodCIDRFull(t *testing.T) {
	n := network(t, host(t), func(c *Config) { c.PodCIDR = "10.9.9.0/30" })
	a := attach(t, n, "a")
	_, err := tryAttach(t, n, "b")
	if err == nil || !strings.Contains(err.Error(), "pod CIDR 10.9.9.0/30: no free address") {
		t.Errorf("second pod: %v", err)
	}
	var p *PluginError
	if !errors.As(err, &p) || p.Plugin != bridge.Type || p.Command != "ADD" || p.Code != 11 {
		t.Errorf("error %#v, want the plugin's, code 11", err)
	}
	detach(t, n, a)
	attach(t, n, "c")
}

func TestPodCIDROverlap(t *testing.T) {
	n := network(t, host(t), func(c *Config) { c.PodCIDR = "192.0.2.0/24" })
	outside(t)
	s := n.Status(ctx)
	if s.Ready || !strings.Contains(s.Message, "uplink") || !strings.Contains(s.Message, "network.pod_cidr") {
		t.Errorf("status %+v, want not ready with the interface and the setting", s)
	}
	if _, err := tryAttach(t, n, "a"); err == nil {
		t.Error("attached with the uplink's subnet")
	}
}

func TestForeignForwardDrop(t *testing.T) {
	n := network(t, host(t), nil)
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}
	drop := nftables.ChainPolicyDrop
	t.Cleanup(func() { c.DelTable(table); _ = c.Flush() })
	c.AddTable(table)
	c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	s := n.Status(ctx)
	for _, part := range []string{"nft table ip filter, chain FORWARD", "iptables -I FORWARD -i cri-mini0 -j ACCEPT", "-o cri-mini0"} {
		if !s.Ready || s.Reason != ReasonForeignForward || !strings.Contains(s.Message, part) {
			t.Errorf("status %+v lacks %q", s, part)
		}
	}
	away := outside(t)
	serve(t, away, "tcp4", ":80", "away")
	a := attach(t, n, "a")
	want(t, "under the drop", ask(t, a.ns, "tcp", outsideIP+":80"), "")
	drops, err := nat.ForeignDrops("cri-mini0")
	if err != nil || len(drops) != 1 {
		t.Fatalf("drops %v, err %v", drops, err)
	}
	shell(t, drops[0].Fix)
	if s := n.Status(ctx); s.Message != "" {
		t.Errorf("status after the fix: %+v", s)
	}
	want(t, "after the fix", ask(t, a.ns, "tcp", outsideIP+":80"), "away ")
}

func TestParallel(t *testing.T) {
	n := network(t, host(t), nil)
	const count = 40
	pods := make([]pod, count)
	for i := range pods {
		ns := newNS(t, fmt.Sprint("p", i))
		att, err := n.Prepare(Request{PodID: fmt.Sprint("p", i), NetnsPath: ns, Ports: []PortMapping{{ContainerPort: 80, HostPort: int32(20000 + i)}}})
		if err != nil {
			t.Fatal(err)
		}
		pods[i] = pod{ns, att}
	}
	each := func(f func(pod) error) {
		t.Helper()
		var wg sync.WaitGroup
		for _, p := range pods {
			wg.Go(func() {
				if err := f(p); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	each(func(p pod) error { return n.Attach(ctx, p.att) })
	seen := map[string]bool{}
	for _, p := range pods {
		if seen[p.ip()] {
			t.Errorf("address %s twice", p.ip())
		}
		seen[p.ip()] = true
	}
	each(func(p pod) error { return n.Check(ctx, p.att) })
	each(func(p pod) error { return n.Detach(ctx, p.att) })
	for _, p := range pods {
		dropNS(t, p.ns)
	}
	each(func(p pod) error { return n.WaitGone(ctx, p.att) })
	if _, err := nodeMapped(); err != nil {
		t.Error(err)
	}
}

func TestGCKeepsOnlyWhatIsNamed(t *testing.T) {
	dir := host(t)
	n := network(t, dir, nil)
	a, b := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8080}), attach(t, n, "b")
	n = network(t, dir, nil)
	if err := n.GC(ctx, []*Attachment{b.att}); err != nil {
		t.Fatal(err)
	}
	if _, err := hostLink(t, a); err == nil {
		t.Error("the veth of a is still there")
	}
	if err := n.Check(ctx, b.att); err != nil {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(runDir(dir), "*", "*a?eth0")); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
	if _, err := nodeMapped(); err != nil {
		t.Error(err)
	}
}
