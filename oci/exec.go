package oci

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecInput is what a client wants run in a container.
type ExecInput struct {
	Cmd []string
	TTY bool
}

// Check says what is wrong with a request, before the container is looked for.
func (in ExecInput) Check() error {
	if len(in.Cmd) == 0 || in.Cmd[0] == "" {
		return &InvalidError{Config: execConfig, Field: "cmd", Why: "is empty"}
	}
	for i, a := range in.Cmd {
		if strings.ContainsRune(a, 0) {
			return &InvalidError{Config: execConfig, Field: indexed("cmd", i), Why: "contains a NUL byte"}
		}
	}
	return nil
}

// Exec describes a process beside the container's first one: the same user,
// capabilities, labels, limits and environment, its own command and terminal.
// The seccomp filter is the container's too and not part of a process. The
// result shares nothing with container.
func Exec(container *specs.Spec, in ExecInput) *specs.Process {
	p := *container.Process
	p.Args = slices.Clone(in.Cmd)
	p.Terminal = in.TTY
	p.ConsoleSize = nil
	p.Env = slices.Clone(p.Env)
	hasTerm := func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }
	if in.TTY && !slices.ContainsFunc(p.Env, hasTerm) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	p.Rlimits = slices.Clone(p.Rlimits)
	if c := p.Capabilities; c != nil {
		p.Capabilities = &specs.LinuxCapabilities{
			Bounding: slices.Clone(c.Bounding), Effective: slices.Clone(c.Effective),
			Inheritable: slices.Clone(c.Inheritable), Permitted: slices.Clone(c.Permitted),
			Ambient: slices.Clone(c.Ambient),
		}
	}
	if p.OOMScoreAdj != nil {
		score := *p.OOMScoreAdj
		p.OOMScoreAdj = &score
	}
	return &p
}
