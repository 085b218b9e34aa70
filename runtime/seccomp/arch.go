//go:build cgo

package seccomp

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// families are the architectures whose system calls one kernel takes; a kernel
// that is not in the list takes its own.
var families = map[lib.ScmpArch][]lib.ScmpArch{
	lib.ArchAMD64:    {lib.ArchX86, lib.ArchX32},
	lib.ArchARM64:    {lib.ArchARM},
	lib.ArchS390X:    {lib.ArchS390},
	lib.ArchPPC64:    {lib.ArchPPC},
	lib.ArchMIPS64:   {lib.ArchMIPS, lib.ArchMIPS64N32},
	lib.ArchMIPSEL64: {lib.ArchMIPSEL, lib.ArchMIPSEL64N32},
}

// tokens are the kernel's words for architectures (AUDIT_ARCH_*).
var tokens = map[lib.ScmpArch]uint32{
	lib.ArchAMD64:       unix.AUDIT_ARCH_X86_64,
	lib.ArchX86:         unix.AUDIT_ARCH_I386,
	lib.ArchARM64:       unix.AUDIT_ARCH_AARCH64,
	lib.ArchARM:         unix.AUDIT_ARCH_ARM,
	lib.ArchS390X:       unix.AUDIT_ARCH_S390X,
	lib.ArchS390:        unix.AUDIT_ARCH_S390,
	lib.ArchPPC64LE:     unix.AUDIT_ARCH_PPC64LE,
	lib.ArchPPC64:       unix.AUDIT_ARCH_PPC64,
	lib.ArchPPC:         unix.AUDIT_ARCH_PPC,
	lib.ArchRISCV64:     unix.AUDIT_ARCH_RISCV64,
	lib.ArchMIPS:        unix.AUDIT_ARCH_MIPS,
	lib.ArchMIPS64:      unix.AUDIT_ARCH_MIPS64,
	lib.ArchMIPS64N32:   unix.AUDIT_ARCH_MIPS64N32,
	lib.ArchMIPSEL:      unix.AUDIT_ARCH_MIPSEL,
	lib.ArchMIPSEL64:    unix.AUDIT_ARCH_MIPSEL64,
	lib.ArchMIPSEL64N32: unix.AUDIT_ARCH_MIPSEL64N32,
}

// x32Bit is set in the numbers of x32, which shares AUDIT_ARCH_X86_64.
const x32Bit = 0x40000000

// archesOf returns the machine's own architecture, which is always allowed, and
// those of the list that its kernel takes. The others are left out: such a call
// cannot come, and would be killed.
func archesOf(list []specs.Arch) ([]lib.ScmpArch, error) {
	native, err := lib.GetNativeArch()
	if err != nil {
		return nil, fmt.Errorf("architectures: find the machine's own: %w", err)
	}
	arches := []lib.ScmpArch{native}
	for i, word := range list {
		arch, err := archOf(word)
		if err != nil {
			return nil, fmt.Errorf("architectures[%d]: %w", i, err)
		}
		if slices.Contains(families[native], arch) && !slices.Contains(arches, arch) {
			arches = append(arches, arch)
		}
	}
	return arches, nil
}

// archOf turns SCMP_ARCH_X into the library's word.
func archOf(word specs.Arch) (lib.ScmpArch, error) {
	name, ok := strings.CutPrefix(string(word), "SCMP_ARCH_")
	if !ok || name != strings.ToUpper(name) {
		return 0, fmt.Errorf("unknown architecture %q", word)
	}
	name = strings.ToLower(name)
	switch name {
	case "x86_64":
		name = "amd64"
	case "aarch64":
		name = "arm64"
	}
	arch, err := lib.GetArchFromString(name)
	if err != nil {
		return 0, fmt.Errorf("unknown architecture %q", word)
	}
	return arch, nil
}

// wordOf is the way back from archOf.
func wordOf(arch lib.ScmpArch) string {
	name := arch.String()
	switch arch {
	case lib.ArchAMD64:
		name = "x86_64"
	case lib.ArchARM64:
		name = "aarch64"
	}
	return "SCMP_ARCH_" + strings.ToUpper(name)
}

// tokensOf returns the kernel's words for architectures; none when the machine
// has other numbers for new calls, see newer.go.
func tokensOf(arches []lib.ScmpArch) []uint32 {
	var list []uint32
	for _, arch := range arches {
		if strings.HasPrefix(arch.String(), "mips") {
			return nil
		}
		if token, ok := tokens[arch]; ok && !slices.Contains(list, token) {
			list = append(list, token)
		}
	}
	return list
}

// join puts the filters of some architectures, the machine's own first, behind
// a switch that leads to each of the others. Every one checks the architecture
// itself, so a wrong turn ends in a kill.
func join(arches []lib.ScmpArch, parts [][]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	size := 1 + 2*(len(parts)-1)
	x32 := slices.Index(arches, lib.ArchX32)
	if x32 > 0 {
		size++
	}
	insns := []unix.SockFilter{load(4)}
	start := size + len(parts[0])/insnSize // where the part at hand will begin
	var out []byte
	var last []unix.SockFilter
	for i, part := range parts[1:] {
		out = append(out, part...)
		test := []unix.SockFilter{jump(unix.BPF_JEQ, tokens[arches[i+1]], 0, 1)}
		if i+1 == x32 { // goes last, for it looks at the number instead
			last = []unix.SockFilter{load(0), jump(unix.BPF_JGE, x32Bit, 0, 1), ja(start - size)}
		} else {
			test = append(test, ja(start-len(insns)-2))
			insns = append(insns, test...)
		}
		start += len(part) / insnSize
	}
	insns = append(insns, last...)
	return append(append(encode(insns), parts[0]...), out...)
}

// ja jumps over instructions without a condition, as far as it takes.
func ja(over int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(over)}
}
