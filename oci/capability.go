package oci

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// capNames are the capabilities in the order of their numbers
// (include/uapi/linux/capability.h).
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCaps is what an unprivileged container has, the set that Docker
// chose and every runtime since kept: images count on it.
const defaultCaps = capSet(1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<13 | 1<<18 | 1<<27 | 1<<29 | 1<<31)

// capSet has bit n set for capability n.
type capSet uint64

func (s capSet) names() []string {
	var list []string
	for n, name := range capNames {
		if s&(1<<n) != 0 {
			list = append(list, name)
		}
	}
	return list
}

// availableCaps is what "ALL" means: no more than our own, or capset(2) fails.
// Whoever enters a user namespace gets a full set in it, whatever it had
// (user_namespaces(7)), so there only the kernel's age is a limit.
func (b *builder) availableCaps() capSet {
	known := capSet(1)<<(min(b.in.Facts.LastCap, len(capNames)-1)+1) - 1
	if b.userns() {
		return known
	}
	return known & capSet(b.in.Facts.Caps)
}

// capabilities computes the sets: defaults, ALL added or dropped, names added,
// names dropped, in this order, so that a name wins over ALL and a drop over an
// add. The inheritable set stays empty but for ambient ones: a non-empty one
// let programs with inheritable file capabilities gain them (CVE-2022-24769,
// CVE-2022-29162). A process that is not root loses the effective and permitted
// sets at execve, by the kernel's rule.
func (b *builder) capabilities() (*specs.LinuxCapabilities, error) {
	c, all := b.sc.GetCapabilities(), b.availableCaps()
	add, addAll, err := b.parseCaps("add_capabilities", c.GetAddCapabilities(), all)
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := b.parseCaps("drop_capabilities", c.GetDropCapabilities(), ^capSet(0))
	if err != nil {
		return nil, err
	}
	ambient, ambientAll, err := b.parseCaps("add_ambient_capabilities", c.GetAddAmbientCapabilities(), all)
	if err != nil {
		return nil, err
	}
	set := defaultCaps & all
	if addAll {
		set = all
	}
	if dropAll {
		set = 0
	}
	set |= add | ambient
	if b.privileged {
		set, drop = all, 0
	}
	set &^= drop
	if ambientAll {
		ambient = set
	}
	ambient &= set
	return &specs.LinuxCapabilities{
		Bounding: set.names(), Effective: set.names(), Permitted: set.names(),
		Inheritable: ambient.names(), Ambient: ambient.names(),
	}, nil
}

// parseCaps reads names with or without CAP_, in any case. One that is not in
// can is refused.
func (b *builder) parseCaps(name string, list []string, can capSet) (set capSet, all bool, err error) {
	for i, s := range list {
		field := indexed(scField+"capabilities."+name, i)
		full := strings.ToUpper(s)
		if full == "ALL" || full == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		n := slices.Index(capNames, full)
		switch {
		case n < 0:
			return 0, false, badContainer(field, "%q is not a capability", s)
		case can&(1<<n) == 0 && !b.privileged:
			return 0, false, badContainer(field, "%s cannot be given: the daemon does not have it itself", full)
		}
		set |= 1 << n
	}
	return set, all, nil
}
