package main

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/seccomp"
)

// seccomp compiles a profile for the compiler of plans.
func (a *app) seccomp(p *specs.LinuxSeccomp) ([]byte, uint64, string, error) {
	f, err := seccomp.Compile(p)
	if err != nil {
		return nil, 0, "", err
	}
	return f.BPF, uint64(f.Flags), fmt.Sprintf("%s/%d-rules", p.DefaultAction, len(p.Syscalls)), nil
}
