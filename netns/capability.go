package netns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/cri-mini/cri-mini/netns/bridge"
)

// capabilities are the arguments that plugins get if they declare them (CNI
// CONVENTIONS.md, "dynamic plugin specific fields").
func (n *Network) capabilities(r Request) (map[string]json.RawMessage, error) {
	args := map[string]any{}
	ports, err := portMappings(r.Ports)
	if err != nil {
		return nil, err
	}
	if len(ports) > 0 {
		args["portMappings"] = ports
	}
	bw, err := bandwidth(r.Annotations)
	if err != nil {
		return nil, err
	}
	if bw != nil {
		args["bandwidth"] = bw
	}
	if len(r.DNS.Servers)+len(r.DNS.Searches)+len(r.DNS.Options) > 0 {
		args["dns"] = r.DNS
	}
	if r.CgroupParent != "" {
		args["cgroupPath"] = r.CgroupParent
	}
	if len(r.Annotations) > 0 {
		args["io.kubernetes.cri.pod-annotations"] = r.Annotations
	}
	if ranges := n.ipRanges(); len(ranges) > 0 {
		args["ipRanges"] = ranges
	}
	out := map[string]json.RawMessage{}
	for k, v := range args {
		if out[k], err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("encode capability %s: %w", k, err)
		}
	}
	return out, nil
}

type ipRange struct {
	Subnet netip.Prefix `json:"subnet"`
}

// ipRanges is the ipRanges capability: one set of ranges per address family.
func (n *Network) ipRanges() [][]ipRange {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out [][]ipRange
	for _, p := range n.state.PodCIDRs {
		out = append(out, []ipRange{{p}})
	}
	return out
}

// portMappings validates CRI's list and brings it into CNI's form. What is
// listed twice (two containers naming the same port) counts once.
func portMappings(in []PortMapping) ([]bridge.PortMapping, error) {
	type key struct {
		proto, ip string
		port      int32
	}
	seen := map[key]int32{}
	var out []bridge.PortMapping
	for i, p := range in {
		if p.HostPort == 0 {
			continue
		}
		field := fmt.Sprintf("port_mappings[%d]", i)
		proto := strings.ToLower(p.Protocol)
		switch proto {
		case "":
			proto = "tcp"
		case "tcp", "udp", "sctp":
		default:
			return nil, fmt.Errorf("%s.protocol: %q is none of TCP, UDP, SCTP", field, p.Protocol)
		}
		if p.HostPort < 1 || p.HostPort > 65535 {
			return nil, fmt.Errorf("%s.host_port: %d is not between 1 and 65535", field, p.HostPort)
		}
		if p.ContainerPort < 1 || p.ContainerPort > 65535 {
			return nil, fmt.Errorf("%s.container_port: %d is not between 1 and 65535", field, p.ContainerPort)
		}
		ip := ""
		if p.HostIP != "" {
			a, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return nil, fmt.Errorf("%s.host_ip: %q is no IP address", field, p.HostIP)
			}
			ip = a.Unmap().String()
		}
		k := key{proto, ip, p.HostPort}
		if before, ok := seen[k]; ok {
			if before != p.ContainerPort {
				return nil, fmt.Errorf("%s.host_port: %d/%s leads to container ports %d and %d", field, p.HostPort, proto, before, p.ContainerPort)
			}
			continue
		}
		seen[k] = p.ContainerPort
		out = append(out, bridge.PortMapping{HostPort: int(p.HostPort), ContainerPort: int(p.ContainerPort), Protocol: proto, HostIP: ip})
	}
	return out, nil
}
