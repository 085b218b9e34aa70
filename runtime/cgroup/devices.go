package cgroup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // sets cgroups.DevicesSetV1 and V2
	devices "github.com/opencontainers/cgroups/devices/config"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// deviceRules turns the rules of config.json into the library's, in their order.
// A rule without numbers is for all of them, one without access for all kinds.
func deviceRules(list []specs.LinuxDeviceCgroup) ([]*devices.Rule, error) {
	rules := make([]*devices.Rule, 0, len(list))
	for i, entry := range list {
		rule := &devices.Rule{
			Type:        devices.WildcardDevice,
			Major:       devices.Wildcard,
			Minor:       devices.Wildcard,
			Permissions: "rwm",
			Allow:       entry.Allow,
		}
		switch entry.Type {
		case "", "a":
		case "u":
			rule.Type = devices.CharDevice
		case "b", "c":
			rule.Type = devices.Type(entry.Type[0])
		default:
			return nil, fmt.Errorf("resources.devices[%d].type: %q is not one of a, b, c, u", i, entry.Type)
		}
		if entry.Major != nil {
			rule.Major = *entry.Major
		}
		if entry.Minor != nil {
			rule.Minor = *entry.Minor
		}
		if rule.Major < devices.Wildcard || rule.Minor < devices.Wildcard {
			return nil, fmt.Errorf("resources.devices[%d]: number %d:%d is negative", i, rule.Major, rule.Minor)
		}
		if entry.Access != "" {
			if strings.Trim(entry.Access, "rwm") != "" {
				return nil, fmt.Errorf("resources.devices[%d].access: %q has letters other than r, w, m", i, entry.Access)
			}
			rule.Permissions = devices.Permissions(entry.Access).Union("")
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// applyDevices makes the rules the only ones of the cgroup: "deny all" is what
// they begin with, unless the first rule allows all. v1 has files for them; v2
// has an eBPF program that asks for CAP_BPF or CAP_SYS_ADMIN.
//
// A nested cgroup can have no more than its parent (devices.rst in the kernel's
// documentation): "allow all" below a restricted parent stays what the parent
// has, while a single device that the parent lacks is an error.
func (t *Tree) applyDevices(h *hierarchy, path string, rules []*devices.Rule) error {
	if len(rules) == 0 {
		return nil
	}
	resources := &cgroups.Resources{Devices: rules}
	dir := h.dir(path)
	switch {
	case !h.v2 && h.has("devices"):
		err := cgroups.DevicesSetV1(dir, resources)
		if errors.Is(err, unix.EPERM) && allowsAll(rules) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("set device rules of %s: %w", dir, err)
		}
	case h.v2 && t.find("devices") == nil:
		if err := cgroups.DevicesSetV2(dir, resources); err != nil {
			return fmt.Errorf("set device rules of %s by eBPF: %w", dir, err)
		}
	}
	return nil
}

// allowsAll reports whether the rules end up allowing everything.
func allowsAll(rules []*devices.Rule) bool {
	all := false
	for _, rule := range rules {
		if rule.Type == devices.WildcardDevice {
			all = rule.Allow
		} else if !rule.Allow {
			all = false
		}
	}
	return all
}
