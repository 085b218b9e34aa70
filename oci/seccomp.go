package oci

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

const seccompField = scField + "seccomp"

// seccompRequest is what a pod or a container asks for, and what decides what it gets.
type seccompRequest struct {
	config     string // which message
	profile    *criapi.SecurityProfile
	old        string // the deprecated form
	privileged bool
	caps       []string // the profile's conditions look at them
	facts      host.Facts
	file       []byte // content of the file that path named
}

func containerSeccomp(c *criapi.ContainerConfig) seccompRequest {
	sc := c.GetLinux().GetSecurityContext()
	return seccompRequest{config: containerConfig, profile: sc.GetSeccomp(), old: sc.GetSeccompProfilePath(), privileged: sc.GetPrivileged()}
}

// podSeccomp is for the one process that a pod may have of its own, which keeps no capability.
func podSeccomp(c *criapi.PodSandboxConfig) seccompRequest {
	sc := c.GetLinux().GetSecurityContext()
	return seccompRequest{config: podConfig, profile: sc.GetSeccomp(), old: sc.GetSeccompProfilePath()}
}

// SeccompPath returns the profile file that a container config asks for, which
// the caller reads and gives as ContainerInput.SeccompProfile; "" when none.
func SeccompPath(c *criapi.ContainerConfig) (string, error) { return containerSeccomp(c).path() }

// PodSeccompPath is SeccompPath for PodInput; "" also for a pod without a process.
func PodSeccompPath(c *criapi.PodSandboxConfig) (string, error) {
	if !hasPause(c) {
		return "", nil
	}
	return podSeccomp(c).path()
}

func (r seccompRequest) bad(field, why string, args ...any) error {
	return &InvalidError{Config: r.config, Field: field, Why: fmt.Sprintf(why, args...)}
}

func (r seccompRequest) chosen() (*criapi.SecurityProfile, error) {
	return chosenProfile(r.config, "seccomp", r.profile, "seccomp_profile_path", r.old)
}

func (r seccompRequest) path() (string, error) {
	p, err := r.chosen()
	if err != nil || p.GetProfileType() != criapi.SecurityProfile_Localhost || r.privileged {
		return "", err
	}
	// Clients put the prefix of the deprecated form before it, which no absolute path begins with.
	path := strings.TrimPrefix(p.GetLocalhostRef(), "localhost/")
	if why := checkAbs(path); why != "" {
		return "", r.bad(seccompField+".localhost_ref", "%s", why)
	}
	return path, nil
}

// resolve returns the filter in the runtime-spec's terms, nil for none. Saying
// nothing means unconfined, unlike with AppArmor: so the API has it.
func (r seccompRequest) resolve() (*specs.LinuxSeccomp, error) {
	p, err := r.chosen()
	if err != nil {
		return nil, err
	}
	if p == nil || p.GetProfileType() == criapi.SecurityProfile_Unconfined || r.privileged {
		return nil, nil
	}
	if !r.facts.Seccomp {
		return nil, r.bad(seccompField, "%s was asked for, but this kernel has no seccomp filters", p.GetProfileType())
	}
	if p.GetProfileType() == criapi.SecurityProfile_RuntimeDefault {
		return resolveSeccomp(seccomp.DefaultProfile(), r.caps, r.facts), nil
	}
	path, err := r.path()
	if err != nil {
		return nil, err
	}
	return r.local(path)
}

func (r seccompRequest) local(path string) (*specs.LinuxSeccomp, error) {
	bad := func(why string, args ...any) error {
		return r.bad(seccompField+".localhost_ref", path+": "+why, args...)
	}
	var profile seccomp.Seccomp
	if err := json.Unmarshal(r.file, &profile); err != nil {
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
	return resolveSeccomp(&profile, r.caps, r.facts), nil
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
