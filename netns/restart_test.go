package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

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

// Two daemons on one machine, each with a bridge, a table and networks of its own.
func TestTwoDaemons(t *testing.T) {
	dir := host(t)
	away := outside(t)
	one := network(t, dir, nil)
	second := func(c *Config) {
		c.Bridge, c.PodCIDR, c.RunDir = "cri-mini1", "10.89.0.0/16,fd00:9::/64", "/run/second"
	}
	dir2 := t.TempDir()
	two := network(t, dir2, second)
	t.Cleanup(func() {
		two := network(t, dir2, second)
		if err := errors.Join(two.GC(ctx, nil), two.Remove()); err != nil {
			t.Error(err)
		}
	})
	a := attach(t, one, "a", PortMapping{ContainerPort: 80, HostPort: 8080})
	b := attach(t, two, "b", PortMapping{ContainerPort: 80, HostPort: 8081})
	serve(t, a.ns, "tcp", ":80", "a")
	serve(t, b.ns, "tcp", ":80", "b")
	both := func(when string) {
		t.Helper()
		for _, h := range []string{hostIP, "[" + hostIP6 + "]"} {
			want(t, when+": port of the first", ask(t, away, "tcp", h+":8080"), "a ")
			want(t, when+": port of the second", ask(t, away, "tcp", h+":8081"), "b ")
			want(t, when+": from a pod of the other", ask(t, b.ns, "tcp", h+":8080"), "a ")
			want(t, when+": its own", ask(t, b.ns, "tcp", h+":8081"), "b ")
		}
		want(t, when+": pod to pod", ask(t, a.ns, "tcp", b.ip()+":80"), "b ")
		want(t, when+": by 127.0.0.1", ask(t, "", "tcp", "127.0.0.1:8081"), "b ")
	}
	both("fresh")
	one, two = network(t, dir, nil), network(t, dir2, second)
	if err := errors.Join(one.GC(ctx, []*Attachment{a.att}), two.GC(ctx, []*Attachment{b.att})); err != nil {
		t.Fatal(err)
	}
	both("after a restart of both")
	detach(t, one, a)
	if err := one.Remove(); err != nil {
		t.Fatal(err)
	}
	want(t, "the first is gone", ask(t, away, "tcp", hostIP+":8081"), "b ")
	want(t, "the first is gone, by 127.0.0.1", ask(t, "", "tcp", "127.0.0.1:8081"), "b ")
	third := network(t, t.TempDir(), func(c *Config) { c.Bridge, c.PodCIDR, c.RunDir = "cri-mini2", "10.89.0.0/16", "/run/third" })
	if s := third.Status(ctx); s.Ready || !strings.Contains(s.Message, "pod CIDR 10.89.0.0/16 overlaps the route to 10.89.0.0/16 on cri-mini1: set network.pod_cidr") {
		t.Errorf("status of a daemon with the other's pod CIDR: %+v", s)
	}
}
