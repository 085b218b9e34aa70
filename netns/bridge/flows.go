package bridge

import (
	"log/slog"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

// udpFlows matches the tracked UDP connections to a lease's host ports.
type udpFlows map[uint16]net.IP

func (f udpFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	ip, ok := f[flow.Forward.DstPort]
	return ok && (ip == nil || ip.Equal(flow.Forward.DstIP))
}

// dropFlows forgets tracked UDP connections to the lease's host ports. NAT is
// decided by a connection's first packet, and a UDP client that keeps sending
// keeps its entry alive: it would go on talking to where the port led before.
// Nothing is looked at unless the pod has a UDP host port.
func dropFlows(l ipam.Lease, log *slog.Logger) {
	f := udpFlows{}
	for _, p := range l.Ports {
		if p.Protocol == "udp" {
			f[p.HostPort] = p.HostIP.AsSlice()
		}
	}
	if len(f) == 0 {
		return
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
		log.Warn("forget UDP connections of host ports", "pod", l.Pod, "err", err)
	}
}
