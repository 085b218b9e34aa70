package engine

import (
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/checkpoint"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// grantOf says what a specification gives to the processes of a checkpoint.
func grantOf(spec *specs.Spec, o *CriuOptions) checkpoint.Grant {
	const setgid, setuid = 6, 7
	g := checkpoint.Grant{ReadonlyRoot: spec.Root != nil && spec.Root.Readonly}
	if p := spec.Process; p != nil {
		g.UIDs, g.GIDs = []uint32{p.User.UID}, append([]uint32{p.User.GID}, p.User.AdditionalGids...)
		g.NoNewPrivs = p.NoNewPrivileges
		if c := p.Capabilities; c != nil {
			g.Bounding = capBits(c.Bounding)
			g.Caps = g.Bounding | capBits(c.Permitted) | capBits(c.Inheritable)
		}
		// A set-user-id program of the image gives any id too.
		g.AnyUID = !p.NoNewPrivileges || g.Bounding&(1<<setuid) != 0
		g.AnyGID = !p.NoNewPrivileges || g.Bounding&(1<<setgid) != 0
		g.Labels = labelsOf(p, o)
	}
	g.AnyLabel = o.LSMProfile != "" // which takes the place of theirs
	types := map[string][]uint64{
		"proc": {checkpoint.TypeProc}, "sysfs": {checkpoint.TypeSysfs}, "tmpfs": {checkpoint.TypeTmpfs}, "devpts": {checkpoint.TypeDevpts},
		"mqueue": {checkpoint.TypeMqueue}, "cgroup": {checkpoint.TypeCgroup, checkpoint.TypeCgroup2, checkpoint.TypeTmpfs},
	}
	for _, m := range spec.Mounts {
		if !isBind(m) {
			g.Types = append(g.Types, types[m.Type]...)
		}
	}
	l := spec.Linux
	if l == nil {
		return g
	}
	g.Seccomp = l.Seccomp != nil
	for _, n := range l.Namespaces {
		if file := namespaceFile(n.Type); n.Path == "" && file != "time" { // criu makes a time namespace in any case
			g.Namespaces = append(g.Namespaces, file)
		}
	}
	if len(l.MaskedPaths) > 0 {
		g.Types = append(g.Types, checkpoint.TypeTmpfs)
	}
	g.Masked, g.Readonly = present(spec, l.MaskedPaths), present(spec, l.ReadonlyPaths)
	return g
}

// labelsOf gives the security labels that a process may have. Without one of its own it has that of the runtime.
func labelsOf(p *specs.Process, o *CriuOptions) []string {
	switch {
	case p.ApparmorProfile != "":
		return []string{p.ApparmorProfile}
	case p.SelinuxLabel != "":
		return []string{p.SelinuxLabel}
	}
	own, _ := os.ReadFile("/proc/self/attr/current")
	return []string{"", "unconfined", strings.TrimRight(string(own), "\x00\n")}
}

func namespaceFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// present are the paths below /proc and /sys that this kernel has: others are skipped by init too.
func present(spec *specs.Spec, paths []string) []string {
	var list []string
	for _, p := range paths {
		p = filepath.Clean(p)
		for _, m := range spec.Mounts {
			point := filepath.Clean(m.Destination)
			if (m.Type == "proc" && point == "/proc" || m.Type == "sysfs" && point == "/sys") && checkpoint.Below(p, point) {
				if _, err := os.Lstat(p); err == nil {
					list = append(list, p)
				}
			}
		}
	}
	return list
}

func capBits(names []string) uint64 {
	var bits uint64
	for _, name := range names {
		if n, ok := plan.CapNumber(name); ok {
			bits |= 1 << n
		}
	}
	return bits
}
