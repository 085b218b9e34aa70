package netns

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/cri-mini/cri-mini/netns/bridge"
	"github.com/cri-mini/cri-mini/netns/ipam"
)

// transfer sends so many bytes from one namespace to an address in another and
// returns the rate in bits per second, as the receiver sees it.
func transfer(t testing.TB, from, to, addr string, size int64) float64 {
	t.Helper()
	var l net.Listener
	if err := in(t, to, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	end := time.Now().Add(20 * time.Second)
	_ = l.(*net.TCPListener).SetDeadline(end)
	go func() {
		_ = in(t, from, func() error {
			c, err := (&net.Dialer{Deadline: end}).Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(end)
			_, err = io.CopyN(c, zeros{}, size)
			return err
		})
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(end)
	begin := time.Now()
	n, err := io.Copy(io.Discard, c)
	if err != nil || n != size {
		t.Fatalf("received %d of %d bytes, %v", n, size, err)
	}
	return float64(8*size) / time.Since(begin).Seconds()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func shapedPod(t testing.TB, n *Network, id, ingress, egress string) pod {
	t.Helper()
	ns := newNS(t, id)
	att, err := n.Prepare(Request{PodID: id, NetnsPath: ns, Annotations: map[string]string{annotationIngress: ingress, annotationEgress: egress}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Attach(ctx, att); err != nil {
		t.Fatal(err)
	}
	return pod{ns, att}
}

func ifbs(t testing.TB) (out []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "ifb" {
			out = append(out, l.Attrs().Name)
		}
	}
	return out
}

func TestBandwidth(t *testing.T) {
	dir := host(t)
	n := network(t, dir, func(c *Config) { c.PodCIDR = "10.88.0.0/16,fd00:1::/64" })
	a := shapedPod(t, n, "a", "16M", "24M")
	b := attach(t, n, "b")
	rate := func(what string, got, limit float64) {
		t.Helper()
		// 128 KiB pass at once, TCP's headers count, a loaded machine is slower.
		if got > 1.35*limit || got < 0.3*limit {
			t.Errorf("%s: %.1f Mbit/s, want about %.0f", what, got/1e6, limit/1e6)
		}
	}
	rate("ingress from a neighbour", transfer(t, b.ns, a.ns, a.ip()+":80", 1<<20), 16e6)
	rate("ingress from the host, IPv6", transfer(t, "", a.ns, a.ip6()+":80", 1<<20), 16e6)
	rate("egress to a neighbour", transfer(t, a.ns, b.ns, b.ip()+":80", 1<<20), 24e6)
	rate("egress to the host, IPv6", transfer(t, a.ns, "", "[fd00:1::1]:80", 1<<20), 24e6)
	if got := transfer(t, b.ns, "", "10.88.0.1:80", 8<<20); got < 100e6 {
		t.Errorf("a pod without a limit: %.1f Mbit/s", got/1e6)
	}
	if err := n.Check(ctx, a.att); err != nil {
		t.Error(err)
	}

	// A daemon killed right after Attach repeats it; the limits hold.
	n = network(t, dir, nil)
	if err := n.Attach(ctx, a.att); err != nil {
		t.Fatal(err)
	}
	rate("egress after a restart", transfer(t, a.ns, b.ns, b.ip()+":80", 1<<20), 24e6)
	if l := ifbs(t); len(l) != 1 {
		t.Errorf("ifb devices %v, want one", l)
	}
	host, err := netlink.LinkByName(bridge.LinkName(ipam.Owner{Pod: "a", IfName: IfName}))
	if err != nil {
		t.Fatal(err)
	}
	shell(t, "tc qdisc del dev "+host.Attrs().Name+" root")
	if err := n.Check(ctx, a.att); err == nil {
		t.Error("Check passes without the ingress limit")
	}
	detach(t, n, a)
	if l := ifbs(t); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

// What a kilobit or a petabit needs must fit the kernel's fields.
func TestBandwidthExtremes(t *testing.T) {
	n := network(t, host(t), nil)
	slow := shapedPod(t, n, "slow", "1k", "1k")
	fast := shapedPod(t, n, "fast", "1P", "1P")
	for _, p := range []pod{slow, fast} {
		if err := n.Check(ctx, p.att); err != nil {
			t.Error(err)
		}
	}
	if got := transfer(t, fast.ns, "", "10.88.0.1:80", 8<<20); got < 100e6 {
		t.Errorf("a petabit a second: %.1f Mbit/s", got/1e6)
	}
	serve(t, slow.ns, "tcp", ":80", "slow")
	want(t, "a kilobit a second", ask(t, "", "tcp", slow.ip()+":80"), "slow ")
}

func TestShapedPodsGoTogether(t *testing.T) {
	dir := host(t)
	n := network(t, dir, nil)
	var pods []pod
	for i := range 12 {
		pods = append(pods, shapedPod(t, n, fmt.Sprint("p", i), "10M", "10M"))
	}
	var wg sync.WaitGroup
	for _, p := range pods[:8] {
		wg.Go(func() {
			if err := n.Detach(ctx, p.att); err != nil {
				t.Error(err)
			}
			dropNS(t, p.ns)
			if err := n.WaitGone(ctx, p.att); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l := ifbs(t); len(l) != 4 {
		t.Errorf("%d ifb devices, want those of the four pods that are left: %v", len(l), l)
	}
	// The daemon is killed; two of the four are not known any more, one of them has lost its lease.
	for _, p := range pods[8:10] {
		dropNS(t, p.ns)
	}
	if err := n.Detach(ctx, pods[8].att); err != nil {
		t.Fatal(err)
	}
	n = network(t, dir, nil)
	if err := n.GC(ctx, []*Attachment{pods[10].att, pods[11].att}); err != nil {
		t.Fatal(err)
	}
	if l := ifbs(t); len(l) != 2 {
		t.Errorf("%d ifb devices after GC, want 2: %v", len(l), l)
	}
	for _, p := range pods[10:] {
		if err := n.Check(ctx, p.att); err != nil {
			t.Error(err)
		}
	}
}
