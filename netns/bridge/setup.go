package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

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
	return p.ensure(all, true)
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
		return p.ensure(all, true)
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

// Started tells whether this plugin has made the bridge or taken it over.
func (p *Plugin) Started() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index != 0
}

// ensure makes the bridge serve the subnets. force does it even where memory
// says that it was done.
func (p *Plugin) ensure(want []netip.Prefix, force bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := force
	for _, s := range want {
		fresh = fresh || !p.up[s]
	}
	if !fresh && p.index != 0 {
		return nil
	}
	if err := p.prepareHost(want); err != nil {
		return err
	}
	br, err := p.bridgeLink()
	if err != nil {
		return err
	}
	for _, s := range want {
		gw := netip.PrefixFrom(ipam.Gateway(s), s.Bits())
		if s.Addr().Is6() {
			if err := setSysctl("ipv6/conf/"+p.bridge+"/disable_ipv6", "0"); err != nil {
				return err
			}
			p.ownLoopback(br)
		}
		if err := p.host.AddrReplace(br, address(gw)); err != nil {
			return fmt.Errorf("add address %s to bridge %s: %w", gw, p.bridge, err)
		}
		awaitLocal(p.host, gw.Addr(), time.Now().Add(100*time.Millisecond))
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

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func defaultRoute(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
