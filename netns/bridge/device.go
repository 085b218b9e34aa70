package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (p *Plugin) bridgeLink() (netlink.Link, error) {
	l, err := p.host.LinkByName(p.bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		mtu := p.setMTU
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
	if p.setMTU != 0 && l.Attrs().MTU != p.setMTU {
		if err := p.host.LinkSetMTU(l, p.setMTU); err != nil {
			return nil, fmt.Errorf("set network.mtu %d on bridge %s: %w", p.setMTU, p.bridge, err)
		}
		l.Attrs().MTU = p.setMTU
	}
	if err := p.host.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("set bridge %s up: %w", p.bridge, err)
	}
	p.bridgeSysctls()
	return l, nil
}

// bridgeSysctls: the host ports on 127.0.0.1 need route_localnet (the guard
// chain takes back what else it opens); a pod must not configure the host by
// router advertisements (CVE-2020-10749); and while the link-local address is
// under duplicate address detection, which would begin with the first pod, the
// kernel asks for no neighbour on behalf of others: what is forwarded to pods
// would be lost for two seconds.
func (p *Plugin) bridgeSysctls() {
	for _, s := range []struct{ key, value, otherwise string }{
		{"ipv4/conf/" + p.bridge + "/route_localnet", "1", "host ports will not answer on 127.0.0.1"},
		{"ipv6/conf/" + p.bridge + "/accept_ra", "0", "bridge accepts router advertisements"},
		{"ipv6/conf/" + p.bridge + "/accept_dad", "0", "the first pod is not reached by IPv6 at once"},
	} {
		if err := setSysctl(s.key, s.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn(s.otherwise, "obj", p.bridge, "err", err)
		}
	}
}

// uplinkMTU is the MTU of the interface with the default route, so that what a
// pod sends fits there too; 1500 without one.
func (p *Plugin) uplinkMTU() int {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := p.host.RouteList(nil, family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		for _, r := range routes {
			if r.Dst == nil || r.Dst.IP.IsUnspecified() {
				if l, err := p.host.LinkByIndex(r.LinkIndex); err == nil {
					return l.Attrs().MTU
				}
			}
		}
	}
	return 1500
}

// ownLoopback lets the answers of host ports on [::1] in. They come from the
// bridge, and once translated back they are for ::1, which the kernel looks up
// among that interface's own routes only; IPv4 has route_localnet for this. It
// opens nothing: what comes from a wire with ::1 in it is dropped before. Where
// br_netfilter hands bridged IPv6 frames to netfilter (kube-proxy turns that on),
// they are translated before that check and lost all the same.
func (p *Plugin) ownLoopback(br netlink.Link) {
	err := p.host.RouteReplace(&netlink.Route{
		LinkIndex: br.Attrs().Index, Dst: &net.IPNet{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Priority: 1024,
	})
	if err != nil {
		p.log.Warn("host ports will not answer on [::1]", "obj", p.bridge, "err", err)
	}
}
