package bridge

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/cri-mini/cri-mini/netns/ipam"
	"github.com/cri-mini/cri-mini/netns/nat"
)

// result is what ADD answers: the bridge, both ends of the pair, addresses and
// the default routes.
func (p *Plugin) result(c Conf, l ipam.Lease, netns string) ([]byte, error) {
	const hostSide = 1
	pod := 2
	_, mtu := p.attrs()
	r := &types100.Result{
		CNIVersion: c.CNIVersion,
		Interfaces: []*types100.Interface{
			{Name: p.bridge, Mac: Mac.String()},
			{Name: LinkName(l.Owner)},
			{Name: l.IfName, Mac: podMAC(l).String(), Sandbox: netns},
		},
		DNS: c.DNS,
	}
	r.Interfaces[hostSide].Mtu, r.Interfaces[pod].Mtu = mtu, mtu
	for _, addr := range l.Addrs {
		r.IPs = append(r.IPs, &types100.IPConfig{Interface: &pod, Address: *ipNet(addr), Gateway: ipam.Gateway(addr).AsSlice()})
		r.Routes = append(r.Routes, &types.Route{Dst: *ipNet(defaultRoute(addr)), GW: ipam.Gateway(addr).AsSlice()})
	}
	v, err := r.GetAsVersion(c.CNIVersion)
	if err != nil {
		return nil, types.NewError(types.ErrIncompatibleCNIVersion, err.Error(), "")
	}
	return json.Marshal(v)
}

// subnets are the pod CIDRs that a lease came from.
func subnets(l ipam.Lease) []netip.Prefix {
	out := make([]netip.Prefix, len(l.Addrs))
	for i, a := range l.Addrs {
		out[i] = a.Masked()
	}
	return out
}

func mappings(l ipam.Lease) []nat.Mapping {
	var out []nat.Mapping
	for _, port := range l.Ports {
		host := port.HostIP
		if host.IsUnspecified() {
			host = netip.Addr{}
		}
		for _, a := range l.Addrs {
			if port.HostIP.IsValid() && port.HostIP.Is4() != a.Addr().Is4() {
				continue
			}
			m := nat.Mapping{Protocol: port.Protocol, HostIP: host, HostPort: port.HostPort, Pod: a.Addr(), PodPort: port.PodPort}
			if !slices.Contains(out, m) { // once for all addresses, once for 0.0.0.0
				out = append(out, m)
			}
		}
	}
	return out
}

// parsePorts reads the portMappings capability. A host address must be of a family
// that the pod has: else nothing would ever answer there.
func parsePorts(in []PortMapping, subnets []netip.Prefix) ([]ipam.Port, error) {
	var out []ipam.Port
	for i, m := range in {
		if m.HostPort == 0 {
			continue
		}
		port := ipam.Port{Protocol: strings.ToLower(m.Protocol), HostPort: uint16(m.HostPort), PodPort: uint16(m.ContainerPort)}
		if m.HostPort < 0 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
			return nil, fmt.Errorf("portMappings[%d]: %d:%d is out of range", i, m.HostPort, m.ContainerPort)
		}
		if m.HostIP != "" {
			ip, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, fmt.Errorf("portMappings[%d].hostIP: %w", i, err)
			}
			port.HostIP = ip.Unmap()
			if !slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == port.HostIP.Is4() }) {
				return nil, fmt.Errorf("portMappings[%d].hostIP: the pod has no address of the family of %s", i, port.HostIP)
			}
		}
		out = append(out, port)
	}
	return out, nil
}
