package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

func (c Conf) validate(bridge string) error {
	if c.Bridge != bridge {
		return fmt.Errorf("bridge: %q is not the bridge of this daemon, %q", c.Bridge, bridge)
	}
	if len(c.Subnets) == 0 {
		return errors.New("subnets: none given")
	}
	return ValidateSubnets(c.Subnets)
}

// ValidateSubnets says whether pods can have one address of each: at most one
// subnet per family.
func ValidateSubnets(all []netip.Prefix) error {
	for i, s := range all {
		if err := validateSubnet(s); err != nil {
			return err
		}
		if i > 1 || i == 1 && s.Addr().Is4() == all[0].Addr().Is4() {
			return fmt.Errorf("pod CIDR %s: a pod has at most one address of each family", s)
		}
	}
	return nil
}

func validateSubnet(s netip.Prefix) error {
	switch {
	case !s.IsValid():
		return errors.New("pod CIDR is empty")
	case s.Addr().Is4() && (s.Bits() < 8 || s.Bits() > 30):
		return fmt.Errorf("pod CIDR %s: length must be between /8 and /30", s)
	case s.Addr().Is6() && (s.Bits() < 16 || s.Bits() > 126):
		return fmt.Errorf("pod CIDR %s: length must be between /16 and /126", s)
	case s != s.Masked():
		return fmt.Errorf("pod CIDR %s has host bits set; write %s", s, s.Masked())
	case s.Addr().IsLoopback() || s.Addr().IsMulticast() || s.Addr().IsLinkLocalUnicast() || s.Addr().Is4In6():
		return fmt.Errorf("pod CIDR %s is not a unicast network", s)
	}
	return nil
}

// IPv6 says why pods cannot have IPv6 on this host; nil if they can.
func IPv6() error {
	const dir = "/proc/sys/net/ipv6/conf/"
	off, err := os.ReadFile(dir + "default/disable_ipv6")
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the kernel has no IPv6 (see ipv6.disable on its command line)")
	}
	if err != nil {
		return fmt.Errorf("read net.ipv6.conf.default.disable_ipv6: %w", err)
	}
	if strings.TrimSpace(string(off)) != "0" {
		return errors.New("IPv6 is turned off by net.ipv6.conf.default.disable_ipv6")
	}
	return nil
}
