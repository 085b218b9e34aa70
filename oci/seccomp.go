package oci

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

const seccompField = scField + "seccomp"

// SeccompPath returns the profile file that a container config asks for, which
// the caller reads and gives as ContainerInput.SeccompProfile; "" when none.
func SeccompPath(c *criapi.ContainerConfig) (string, error) {
	sc := c.GetLinux().GetSecurityContext()
	p, err := chosenProfile("seccomp", sc.GetSeccomp(), "seccomp_profile_path", sc.GetSeccompProfilePath())
	if err != nil || p.GetProfileType() != criapi.SecurityProfile_Localhost || sc.GetPrivileged() {
		return "", err
	}
	path := seccompRef(p)
	if why := checkAbs(path); why != "" {
		return "", badContainer(seccompField+".localhost_ref", "%s", why)
	}
	return path, nil
}

// seccompRef is the profile's file. Clients put the prefix of the deprecated
// form before it, which no absolute path begins with.
func seccompRef(p *criapi.SecurityProfile) string {
	return strings.TrimPrefix(p.GetLocalhostRef(), "localhost/")
}

// seccomp returns the filter in the runtime-spec's terms, nil for none. Saying
// nothing means unconfined, unlike with AppArmor: so the API has it.
func (b *builder) seccomp() (*specs.LinuxSeccomp, error) {
	p, err := chosenProfile("seccomp", b.sc.GetSeccomp(), "seccomp_profile_path", b.sc.GetSeccompProfilePath())
	if err != nil {
		return nil, err
	}
	if p == nil || p.GetProfileType() == criapi.SecurityProfile_Unconfined || b.privileged {
		return nil, nil
	}
	if !b.in.Facts.Seccomp {
		return nil, badContainer(seccompField, "%s was asked for, but this kernel has no seccomp filters", p.GetProfileType())
	}
	if p.GetProfileType() == criapi.SecurityProfile_RuntimeDefault {
		return resolveSeccomp(seccomp.DefaultProfile(), b.caps.Bounding, b.in.Facts), nil
	}
	path := seccompRef(p)
	if why := checkAbs(path); why != "" {
		return nil, badContainer(seccompField+".localhost_ref", "%s", why)
	}
	return b.localSeccomp(path)
}

func (b *builder) localSeccomp(path string) (*specs.LinuxSeccomp, error) {
	bad := func(why string, args ...any) error {
		return badContainer(seccompField+".localhost_ref", path+": "+why, args...)
	}
	var profile seccomp.Seccomp
	if err := json.Unmarshal(b.in.SeccompProfile, &profile); err != nil {
		return nil, bad("%v", err)
	}
	switch {
	case profile.DefaultAction == "":
		return nil, bad("defaultAction is missing")
	case len(profile.Architectures) > 0 && len(profile.ArchMap) > 0:
		return nil, bad("has both architectures and archMap")
	}
	for i, call := range profile.Syscalls {
		if call == nil || call.Action == "" {
			return nil, bad("syscalls[%d] has no action", i)
		}
		if call.Name != "" && len(call.Names) > 0 {
			return nil, bad("syscalls[%d] has both name and names", i)
		}
	}
	return resolveSeccomp(&profile, b.caps.Bounding, b.in.Facts), nil
}

// resolveSeccomp evaluates a profile's conditions for this machine and these
// capabilities. The profile package has a function for it, which asks the
// kernel it happens to run on; this one asks the facts.
func resolveSeccomp(p *seccomp.Seccomp, caps []string, facts host.Facts) *specs.LinuxSeccomp {
	out := p.LinuxSeccomp
	native := seccompArches[facts.Arch]
	for _, a := range p.ArchMap {
		if native.arch == a.Arch {
			out.Architectures = append([]specs.Arch{a.Arch}, a.SubArches...)
		}
	}
	applies := seccompConditions{arch: native.name, caps: caps, kernel: facts.Kernel}
	for _, call := range p.Syscalls {
		if !applies.includes(call.Includes) || applies.excludes(call.Excludes) {
			continue
		}
		s := call.LinuxSyscall
		if call.Name != "" {
			s.Names = []string{call.Name}
		}
		out.Syscalls = append(out.Syscalls, s)
	}
	return &out
}

// seccompConditions is what the rules of a profile may depend on.
type seccompConditions struct {
	arch   string
	caps   []string
	kernel host.Kernel
}

// includes holds when every condition does.
func (c seccompConditions) includes(f *seccomp.Filter) bool {
	if f == nil {
		return true
	}
	for _, name := range f.Caps {
		if !slices.Contains(c.caps, name) {
			return false
		}
	}
	return (len(f.Arches) == 0 || slices.Contains(f.Arches, c.arch)) && (f.MinKernel == nil || c.atLeast(f.MinKernel))
}

// excludes holds when any condition does.
func (c seccompConditions) excludes(f *seccomp.Filter) bool {
	if f == nil {
		return false
	}
	for _, name := range f.Caps {
		if slices.Contains(c.caps, name) {
			return true
		}
	}
	return slices.Contains(f.Arches, c.arch) || f.MinKernel != nil && c.atLeast(f.MinKernel)
}

func (c seccompConditions) atLeast(v *seccomp.KernelVersion) bool {
	return c.kernel.AtLeast(int(v.Kernel), int(v.Major))
}

// seccompArches maps Go's names of architectures to those of profiles: name is
// what conditions use, arch what a filter is made for.
var seccompArches = map[string]struct {
	name string
	arch specs.Arch
}{
	"386":      {"x86", specs.ArchX86},
	"amd64":    {"amd64", specs.ArchX86_64},
	"arm":      {"arm", specs.ArchARM},
	"arm64":    {"arm64", specs.ArchAARCH64},
	"loong64":  {"loongarch64", specs.ArchLOONGARCH64},
	"mips64":   {"mips64", specs.ArchMIPS64},
	"mips64le": {"mipsel64", specs.ArchMIPSEL64},
	"ppc64le":  {"ppc64le", specs.ArchPPC64LE},
	"riscv64":  {"riscv64", specs.ArchRISCV64},
	"s390x":    {"s390x", specs.ArchS390X},
}
