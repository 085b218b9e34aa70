package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
	"github.com/cri-mini/cri-mini/netns/nat"
)

// Mac is the bridge's address on every node. Without a fixed one a bridge takes
// the lowest of its ports' and changes it as pods come and go, which breaks what
// the pods have in their neighbour tables. Pods are 0a:58 and their IPv4
// address, so this one (0.0.0.1) is no pod's.
var Mac = net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 1}

// Restore makes the kernel match the leases: bridge, subnets, table, host ports.
// It does nothing while there are none.
func (p *Plugin) Restore() error {
	leases := p.leases.List()
	if len(leases) == 0 {
		return nil
	}
	owners := map[string][]nat.Mapping{}
	var all []netip.Prefix
	for _, l := range leases {
		owners[l.Owner.String()] = mappings(l)
		all = append(all, subnets(l)...)
	}
	p.table.Reset(owners)
	return p.ensure(all, 0, true)
}

// Verify repairs what somebody else removed: the bridge (a network manager) or
// the table (`nft flush ruleset`). It is cheap and meant to be called with each
// Status. Before the first ADD it does nothing.
func (p *Plugin) Verify() error {
	p.mu.Lock()
	started := p.index != 0
	var all []netip.Prefix
	for s := range p.up {
		all = append(all, s)
	}
	p.mu.Unlock()
	if !started {
		return nil
	}
	if l, err := p.host.LinkByName(p.bridge); err != nil || l.Attrs().Index != p.index {
		p.log.Warn("pod bridge was removed; making it again", "obj", p.bridge)
		return p.ensure(all, 0, true)
	}
	there, err := p.table.Present()
	if err != nil {
		return err
	}
	if !there {
		p.log.Warn("nft table was removed; making it again", "obj", "inet "+p.table.Name())
		return p.table.Rebuild(all)
	}
	return nil
}

// Remove deletes the bridge and the table, for `cri-mini` to leave a machine as
// it was. Pods that are still attached lose their network. net.ipv4.ip_forward
// stays: others may rely on it by now.
func (p *Plugin) Remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index = 0
	clear(p.up)
	return errors.Join(p.table.Delete(), p.deleteLink(p.bridge))
}

// ensure makes the bridge serve the subnets. force does it even where memory
// says that it was done.
func (p *Plugin) ensure(want []netip.Prefix, mtu int, force bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := force
	for _, s := range want {
		fresh = fresh || !p.up[s]
	}
	if !fresh && p.index != 0 {
		return nil
	}
	for _, s := range want {
		if err := p.overlap(s); err != nil {
			return err
		}
	}
	if err := p.forwarding(); err != nil {
		return err
	}
	br, err := p.bridgeLink(mtu)
	if err != nil {
		return err
	}
	for _, s := range want {
		gw := netip.PrefixFrom(ipam.Gateway(s), s.Bits())
		err := p.host.AddrReplace(br, &netlink.Addr{IPNet: ipNet(gw)})
		if err != nil {
			return fmt.Errorf("add address %s to bridge %s: %w", gw, p.bridge, err)
		}
		p.up[s] = true
	}
	all := make([]netip.Prefix, 0, len(p.up))
	for s := range p.up {
		all = append(all, s)
	}
	if err := p.table.Rebuild(all); err != nil {
		clear(p.up) // so that the next ADD tries again
		return err
	}
	p.mtu = br.Attrs().MTU
	if p.index != br.Attrs().Index {
		p.index = br.Attrs().Index
		p.adopt()
	}
	return nil
}

// adopt puts the leases' veths on the bridge: at a restart they are there; when
// the bridge was deleted and made again they are loose. The master goes in a
// message of its own: hairpin mode is refused while the port has none.
func (p *Plugin) adopt() {
	end := time.Now().Add(200 * time.Millisecond)
	for _, l := range p.leases.List() {
		link, err := p.host.LinkByName(LinkName(l.Owner))
		if err != nil || link.Attrs().MasterIndex == p.index {
			continue // an ADD under way makes it, or will find it missing
		}
		if err = p.host.LinkSetMasterByIndex(link, p.index); err == nil {
			err = p.finishPort(l.Owner)
		}
		if err != nil {
			p.log.Warn("put veth back on bridge", "pod", l.Pod, "obj", p.bridge, "err", err)
			continue
		}
		awaitUp(p.host, LinkName(l.Owner), end)
		awaitUp(p.host, p.bridge, end)
	}
}

func (p *Plugin) bridgeLink(mtu int) (netlink.Link, error) {
	l, err := p.host.LinkByName(p.bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		if mtu == 0 {
			mtu = p.uplinkMTU()
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr, attrs.MTU, attrs.Flags = p.bridge, Mac, mtu, net.FlagUp
		if err := p.host.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("create bridge %s: %w", p.bridge, err)
		}
		l, err = p.host.LinkByName(p.bridge)
	}
	if err != nil {
		return nil, fmt.Errorf("find bridge %s: %w", p.bridge, err)
	}
	if l.Type() != "bridge" {
		return nil, fmt.Errorf("find bridge %s: it is a %s; set network.bridge to another name", p.bridge, l.Type())
	}
	if l.Attrs().HardwareAddr.String() != Mac.String() {
		if err := p.host.LinkSetHardwareAddr(l, Mac); err != nil {
			return nil, fmt.Errorf("set address of bridge %s: %w", p.bridge, err)
		}
	}
	if err := p.host.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("set bridge %s up: %w", p.bridge, err)
	}
	p.bridgeSysctls()
	return l, nil
}

// bridgeSysctls: the host ports on 127.0.0.1 need route_localnet (the guard
// chain takes back what else it opens); a pod must not configure the host by
// router advertisements (CVE-2020-10749).
func (p *Plugin) bridgeSysctls() {
	if err := setSysctl("ipv4/conf/"+p.bridge+"/route_localnet", "1"); err != nil {
		p.log.Warn("host ports will not answer on 127.0.0.1", "obj", p.bridge, "err", err)
	}
	err := setSysctl("ipv6/conf/"+p.bridge+"/accept_ra", "0")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("bridge accepts router advertisements", "obj", p.bridge, "err", err)
	}
}

// forwarding turns net.ipv4.ip_forward on if it is off, and says so: it is the
// one setting of the host outside our own interfaces.
func (p *Plugin) forwarding() error {
	const key = "ipv4/ip_forward"
	v, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil {
		return fmt.Errorf("read net.ipv4.ip_forward: %w", err)
	}
	if strings.TrimSpace(string(v)) != "0" {
		return nil
	}
	if err := setSysctl(key, "1"); err != nil {
		return fmt.Errorf("pods cannot reach other networks: %w; run sysctl -w net.ipv4.ip_forward=1", err)
	}
	p.changed("net.ipv4.ip_forward")
	p.log.Info("turned net.ipv4.ip_forward on for the pod network", "obj", p.bridge)
	return nil
}

func setSysctl(key, value string) error {
	path := "/proc/sys/net/" + key
	if old, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(old)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set net/%s=%s: %w", key, value, err)
	}
	return nil
}

// uplinkMTU is the MTU of the interface with the default route, so that what a
// pod sends fits there too; 1500 without one.
func (p *Plugin) uplinkMTU() int {
	routes, err := p.host.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 1500
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			if l, err := p.host.LinkByIndex(r.LinkIndex); err == nil {
				return l.Attrs().MTU
			}
		}
	}
	return 1500
}

// Overlap says whether a subnet is in use on this host by something else.
func (p *Plugin) Overlap(subnets []netip.Prefix) error {
	for _, s := range subnets {
		if err := p.overlap(s); err != nil {
			return err
		}
	}
	return nil
}

// overlap looks for routes inside the subnet (or equal to it) that lead
// elsewhere than to our bridge: they would swallow pod traffic. A wider route
// is harmless, ours is more specific.
func (p *Plugin) overlap(s netip.Prefix) error {
	routes, err := p.host.RouteList(nil, netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list routes: %w", err)
	}
	own := -1
	if l, err := p.host.LinkByName(p.bridge); err == nil {
		own = l.Attrs().Index
	}
	for _, r := range routes {
		if r.Dst == nil || r.LinkIndex == own {
			continue
		}
		addr, _ := netip.AddrFromSlice(r.Dst.IP.To4())
		ones, _ := r.Dst.Mask.Size()
		if ones < s.Bits() || !s.Contains(addr) {
			continue
		}
		dev := fmt.Sprint(r.LinkIndex)
		if l, err := p.host.LinkByIndex(r.LinkIndex); err == nil {
			dev = l.Attrs().Name
		}
		return fmt.Errorf("pod CIDR %s overlaps the route to %s on %s: set network.pod_cidr to a free range", s, r.Dst, dev)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func defaultRoute(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
