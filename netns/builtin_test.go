package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/cri-mini/cri-mini/netns/bridge"
	"github.com/cri-mini/cri-mini/netns/ipam"
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
	if state, err := os.ReadFile(filepath.Join(n.cfg.StateDir, "state.json")); !strings.Contains(string(state), `"net.ipv4.ip_forward"`) {
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
