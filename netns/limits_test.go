package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/bridge"
)

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
	for _, bad := range []string{
		"10.244.1.0", "10.244.1.7/24", "fd00::/127", "fe80::/64", "ff00::/16", "::ffff:10.0.0.0/104", "10.0.0.0/31", "10.1.0.0/24,10.2.0.0/24", "10.1.0.0/24,fd00::/64,fd01::/64",
	} {
		all := strings.Split(bad, ",")
		err := n.SetPodCIDR(bad)
		if err == nil || !strings.Contains(err.Error(), all[len(all)-1]) || !errors.As(err, new(*RequestError)) {
			t.Errorf("SetPodCIDR(%q): %v, want a RequestError that quotes it", bad, err)
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
	if !errors.As(err, &p) || p.Plugin != bridge.Type || p.Command != "ADD" || p.Code != 11 || !errors.Is(err, ErrFull) {
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

func TestMTU(t *testing.T) {
	dir := host(t)
	mtu := func(name, ns string) (out int) {
		t.Helper()
		if err := in(t, ns, func() error {
			l, err := netlink.LinkByName(name)
			if err == nil {
				out = l.Attrs().MTU
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	outside(t)
	shell(t, "ip link set uplink mtu 1450")
	a := attach(t, network(t, dir, nil), "a")
	if got := []int{mtu("cri-mini0", ""), mtu(IfName, a.ns)}; got[0] != 1450 || got[1] != 1450 {
		t.Errorf("bridge and pod %v, want the uplink's 1450", got)
	}
	b := attach(t, network(t, dir, func(c *Config) { c.MTU = 1400 }), "b")
	if got := []int{mtu("cri-mini0", ""), mtu(IfName, b.ns), mtu(IfName, a.ns)}; got[0] != 1400 || got[1] != 1400 || got[2] != 1450 {
		t.Errorf("bridge, new pod, old pod %v, want 1400, 1400, 1450", got)
	}
	var result struct {
		Interfaces []struct{ MTU int }
	}
	if err := json.Unmarshal(b.att.Result, &result); err != nil || result.Interfaces[2].MTU != 1400 {
		t.Errorf("result %s, %v", b.att.Result, err)
	}
	// What is as large as the link lets pass arrives, one byte more does not.
	serve(t, "", "udp4", ":81", "host")
	send := func(size int) (err error) {
		return in(t, b.ns, func() error {
			c, err := net.Dial("udp", "10.88.0.1:81")
			if err != nil {
				return err
			}
			defer c.Close()
			raw, err := c.(*net.UDPConn).SyscallConn()
			if err != nil {
				return err
			}
			_ = raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			})
			if err != nil {
				return err
			}
			_, err = c.Write(make([]byte, size))
			return err
		})
	}
	if err := send(1400 - 28); err != nil {
		t.Errorf("1400 bytes: %v", err)
	}
	if err := send(1400 - 27); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("1401 bytes: %v, want EMSGSIZE", err)
	}
}

// A bridge has 1023 ports (BR_MAX_PORTS); the pod that finds none says so.
func TestBridgeFull(t *testing.T) {
	n := network(t, host(t), nil)
	attach(t, n, "a")
	br, err := netlink.LinkByName("cri-mini0")
	if err != nil {
		t.Fatal(err)
	}
	const group = "4711"
	t.Cleanup(func() { shell(t, "ip link del group "+group) })
	for i := range 511 {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex, attrs.Group = fmt.Sprint("x", i), br.Attrs().Index, 4711
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("y", i)}); err != nil {
			t.Fatal(err)
		}
		peer, err := netlink.LinkByName(fmt.Sprint("y", i))
		if err == nil {
			err = netlink.LinkSetMasterByIndex(peer, br.Attrs().Index)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = tryAttach(t, n, "b")
	if err == nil || !strings.Contains(err.Error(), "bridge cri-mini0 has no port left, the kernel allows 1023") || !errors.Is(err, ErrFull) {
		t.Errorf("pod 1024: %v", err)
	}
}
