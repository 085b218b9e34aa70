package netns

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/bridge"
)

// defaultCIDR is the IPv4 part of the default pod CIDR.
var defaultCIDR = netip.MustParsePrefix("10.88.0.0/16")

// SetPodCIDR stores the pod CIDR that UpdateRuntimeConfig brings, one or one
// of each address family, separated by commas, the primary one first. New pods of
// the built-in network get addresses from it; CNI plugins that declare ipRanges
// are given it. Pods that exist keep theirs. "" changes nothing.
func (n *Network) SetPodCIDR(cidr string) error {
	if cidr == "" {
		return nil
	}
	subnets, err := parseCIDRs(cidr)
	if err != nil {
		return &RequestError{fmt.Errorf("runtime_config.network_config.pod_cidr: %w", err)}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(subnets, n.state.PodCIDRs) {
		return nil
	}
	s := n.state
	s.PodCIDRs = subnets
	if err := s.save(n.cfg.StateDir); err != nil {
		return fmt.Errorf("set pod CIDR: %w", err)
	}
	n.state = s
	n.probe.reset()
	n.log.Info("pod CIDR was set", "obj", cidr)
	return nil
}

// parseCIDRs reads a comma-separated list of networks that pods can live in.
func parseCIDRs(cidr string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, part := range strings.Split(cidr, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q is no network in CIDR notation", part)
		}
		out = append(out, p)
	}
	if err := bridge.ValidateSubnets(out); err != nil {
		return nil, err
	}
	return out, nil
}

// subnets are the networks that new pods get addresses from. Caller holds mu.
func (n *Network) subnets() []netip.Prefix {
	if len(n.state.PodCIDRs) > 0 {
		return n.state.PodCIDRs
	}
	if n.cfg.PodCIDR != "" {
		all, _ := parseCIDRs(n.cfg.PodCIDR) // validated by New
		return all
	}
	if n.ula.IsValid() {
		return []netip.Prefix{defaultCIDR, n.ula}
	}
	return []netip.Prefix{defaultCIDR}
}

// useULA decides whether pods have IPv6 where nobody said anything: if the host
// has it and forwards it or can be told to. The network is the node's own, made
// up once and kept, so that no two nodes or daemons have the same.
func (n *Network) useULA() error {
	if err := bridge.IPv6(); err != nil {
		n.log.Info("pods have IPv4 only", "err", err)
		return nil
	}
	if err := unix.Access("/proc/sys/net/ipv6/conf/all/forwarding", unix.W_OK); err != nil {
		n.log.Info("pods have IPv4 only: net.ipv6.conf.all.forwarding cannot be set", "err", err)
		return nil
	}
	if !n.state.ULA.IsValid() {
		s := n.state
		s.ULA = newULA()
		if err := s.save(n.cfg.StateDir); err != nil {
			return fmt.Errorf("store own IPv6 network: %w", err)
		}
		n.state = s
	}
	n.ula = n.state.ULA
	return nil
}

// newULA is fd, 40 random bits, subnet 0 (RFC 4193, section 3.1).
func newULA() netip.Prefix {
	b := [16]byte{0: 0xfd}
	_, _ = rand.Read(b[1:6]) // never fails
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// only4 leaves IPv4 networks, all if there are none.
func only4(all []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		if p.Addr().Is4() {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return all
	}
	return out
}
