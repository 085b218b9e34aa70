package main

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/worker"
	"github.com/cri-mini/cri-mini/runtime/seccomp"
)

// unpackFilter is the seccomp filter of the processes that unpack images.
func unpackFilter() ([]byte, error) {
	errno := func(e unix.Errno) *uint { n := uint(e); return &n }
	f, err := seccomp.Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: errno(unix.EPERM),
		Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{
			{Names: worker.Syscalls, Action: specs.ActAllow},
			{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.CLONE_THREAD, ValueTwo: unix.CLONE_THREAD, Op: specs.OpMaskedEqual}}},
			// Its flags are in memory, where no filter can look; glibc takes clone instead.
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: errno(unix.ENOSYS)},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("compile filter of the unpacking process: %w", err)
	}
	return f.BPF, nil
}
