package bridge

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

// udpFlows matches tracked UDP connections by where they were addressed to: one
// of the ports, at an address of this host.
type udpFlows struct {
	ports map[uint16]bool
	hosts map[netip.Addr]bool
}

func (f udpFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP || !f.ports[flow.Forward.DstPort] {
		return false
	}
	dst, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	dst = dst.Unmap()
	return dst.IsLoopback() || f.hosts[dst]
}

// dropFlows forgets tracked UDP connections to the lease's host ports. NAT is
// decided by a connection's first packet, and a UDP client that keeps sending
// keeps its entry alive: it would go on talking to where the port led before.
// Connections to the same port of other machines are left alone: a host port 53
// must not cut off the answers that pods wait for. Nothing is looked at unless
// the pod has a UDP host port.
func (p *Plugin) dropFlows(l ipam.Lease) {
	f := udpFlows{ports: map[uint16]bool{}, hosts: map[netip.Addr]bool{}}
	for _, port := range l.Ports {
		if port.Protocol == "udp" {
			f.ports[port.HostPort] = true
		}
	}
	if len(f.ports) == 0 {
		return
	}
	for _, a := range l.Addrs {
		family := netlink.FAMILY_V4
		if a.Addr().Is6() {
			family = netlink.FAMILY_V6
		}
		if err := p.dropFamily(family, f); err != nil {
			p.log.Warn("forget UDP connections of host ports", "pod", l.Pod, "err", err)
		}
	}
}

func (p *Plugin) dropFamily(family int, f udpFlows) error {
	own, err := p.host.AddrList(nil, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	for _, a := range own {
		ip, _ := netip.AddrFromSlice(a.IP)
		f.hosts[ip.Unmap()] = true
	}
	_, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family), f)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil // the table changed while it was read: what was seen is gone
	}
	return err
}
