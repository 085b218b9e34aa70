package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// prepareHost sees that the host can route for the subnets. Caller holds mu.
func (p *Plugin) prepareHost(want []netip.Prefix) error {
	if err := p.Usable(want); err != nil {
		return err
	}
	for _, s := range want {
		forwarding := p.forward4
		if s.Addr().Is6() {
			forwarding = p.forward6
		}
		if err := forwarding(); err != nil {
			return fmt.Errorf("pods cannot reach other networks: %w", err)
		}
	}
	return nil
}

// forward4 turns net.ipv4.ip_forward on if it is off, and says so: it and its
// like of IPv6 are the settings of the host outside our own interfaces.
func (p *Plugin) forward4() error { return p.turnOn("ipv4/ip_forward", func() error { return nil }) }

// forward6 turns net.ipv6.conf.all.forwarding on if it is off. A router ignores
// router advertisements and the kernel forgets the default routes it has from
// them: interfaces that listen get accept_ra=2 first, "even if forwarding", or a
// node on a network with SLAAC would lose its way out.
func (p *Plugin) forward6() error { return p.turnOn("ipv6/conf/all/forwarding", p.keepListening) }

func (p *Plugin) turnOn(key string, before func() error) error {
	if isSet, err := sysctlIs(key, "1"); isSet || err != nil {
		return err
	}
	name := sysctlName(key)
	if err := before(); err != nil {
		return err
	}
	if err := setSysctl(key, "1"); err != nil {
		return fmt.Errorf("%w; run sysctl -w %s=1", err, name)
	}
	p.changed(name)
	p.log.Info("turned forwarding on for the pod network", "obj", name)
	return nil
}

func (p *Plugin) keepListening() error {
	settings, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range settings {
		key := strings.TrimPrefix(path, "/proc/sys/net/")
		switch filepath.Base(filepath.Dir(path)) {
		case "all", "default", "lo", p.bridge: // "all" has no effect here; later interfaces are their owner's affair
			continue
		}
		listens, err := sysctlIs(key, "1")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !listens {
			continue
		}
		if err := setSysctl(key, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.changed(sysctlName(key))
	}
	return nil
}

// sysctlName has slashes in place of what are dots in an interface's name, as sysctl(8) wants it.
func sysctlName(key string) string {
	return "net." + strings.NewReplacer("/", ".", ".", "/").Replace(key)
}

func sysctlIs(key, value string) (bool, error) {
	v, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", sysctlName(key), err)
	}
	return strings.TrimSpace(string(v)) == value, nil
}

func setSysctl(key, value string) error {
	if isSet, err := sysctlIs(key, value); err == nil && isSet {
		return nil // also where /proc/sys is read-only
	}
	return writeSysctl(key, value)
}

func writeSysctl(key, value string) error {
	if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s=%s: %w", sysctlName(key), value, err)
	}
	return nil
}

// Usable says why pods cannot have addresses of these subnets on this host: IPv6
// is off, or something else is there.
func (p *Plugin) Usable(subnets []netip.Prefix) error {
	for _, s := range subnets {
		if s.Addr().Is6() {
			if err := IPv6(); err != nil {
				return fmt.Errorf("pod CIDR %s: %w", s, err)
			}
		}
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
	family := netlink.FAMILY_V4
	if s.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := p.host.RouteList(nil, family)
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
		addr, _ := netip.AddrFromSlice(r.Dst.IP)
		addr = addr.Unmap()
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
