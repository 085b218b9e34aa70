package main

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// allowDefaults appends to a specification's device rules those for the devices that every container gets
// (runtime-spec, config-linux.md, Default Devices), as runc does: a config.json that begins with "deny all", and
// every one does, means all others. Making nodes is allowed, opening them is not; /dev/pts and the terminals
// behind it are used by their numbers. Without rules nothing is denied and nothing is added.
func allowDefaults(spec *specs.Spec) {
	if spec.Linux == nil || spec.Linux.Resources == nil || len(spec.Linux.Resources.Devices) == 0 {
		return
	}
	const any = -1
	resources := *spec.Linux.Resources
	rules := append([]specs.LinuxDeviceCgroup(nil), resources.Devices...)
	add := func(typ string, major, minor int64, access string) {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: typ, Access: access}
		if major != any {
			rule.Major = &major
		}
		if minor != any {
			rule.Minor = &minor
		}
		rules = append(rules, rule)
	}
	add("c", any, any, "m")
	add("b", any, any, "m")
	for _, minor := range []int64{3, 5, 7, 8, 9} { // null, zero, full, random, urandom
		add("c", 1, minor, "rwm")
	}
	for _, minor := range []int64{0, 1, 2} { // tty, console, ptmx
		add("c", 5, minor, "rwm")
	}
	add("c", 136, any, "rwm") // terminals in devpts
	resources.Devices = rules
	l := *spec.Linux
	l.Resources = &resources
	spec.Linux = &l
}
