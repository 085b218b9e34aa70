//go:build cgo

package seccomp

import (
	"encoding/binary"
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// run is the part of the kernel's interpreter that filters use.
func run(bpf []byte, nr, arch uint32, args [6]uint64) (uint32, error) {
	data := make([]byte, 64) // struct seccomp_data
	binary.NativeEndian.PutUint32(data[0:], nr)
	binary.NativeEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.NativeEndian.PutUint64(data[16+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc*insnSize < len(bpf); pc++ {
		insn := bpf[pc*insnSize:]
		code, k := binary.NativeEndian.Uint16(insn), binary.NativeEndian.Uint32(insn[4:])
		holds := false
		switch code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.NativeEndian.Uint32(data[k:])
			continue
		case unix.BPF_RET | unix.BPF_K:
			return k, nil
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= k
			continue
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = acc == k
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			holds = acc > k
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = acc >= k
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			holds = acc&k != 0
		default:
			return 0, fmt.Errorf("instruction %d: code %#x", pc, code)
		}
		if holds {
			pc += int(insn[2])
		} else {
			pc += int(insn[3])
		}
	}
	return 0, fmt.Errorf("ran past the end")
}

// What is put together from one filter for each architecture must answer as
// libseccomp's own filter for all of them.
func TestSwitchAnswersAsOneFilter(t *testing.T) {
	native, err := lib.GetNativeArch()
	if err != nil || native != lib.ArchAMD64 {
		t.Skipf("this machine's architecture %s has another family", native)
	}
	program, err := parse(defaultProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(program.arches) != 3 {
		t.Fatalf("architectures %v", program.arches)
	}
	var parts [][]byte
	for _, arch := range program.arches {
		part, err := program.emit(arch)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
	}
	whole := oneFilter(t, program)
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}} {
		var arches []lib.ScmpArch
		var ordered [][]byte
		for _, i := range order {
			arches, ordered = append(arches, program.arches[i]), append(ordered, parts[i])
		}
		joined := join(arches, ordered)
		for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64} {
			for nr := range uint32(1200) {
				for _, bit := range []uint32{0, x32Bit} {
					compareAnswers(t, joined, whole, nr|bit, arch)
				}
			}
		}
	}
}

func oneFilter(t *testing.T, program *program) []byte {
	t.Helper()
	ctx, err := lib.NewFilter(program.fallback)
	if err != nil {
		t.Fatal(err)
	}
	defer ctx.Release()
	for _, arch := range program.arches {
		if err := ctx.AddArch(arch); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range program.rules {
		for _, call := range r.calls {
			if err := r.addTo(ctx, call); err != nil {
				t.Fatal(err)
			}
		}
	}
	bpf, err := export(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return bpf
}

func compareAnswers(t *testing.T, joined, whole []byte, nr, arch uint32) {
	t.Helper()
	for _, args := range [][6]uint64{{}, {40, 1, 2}, {16, 40, 3}, {0x7e020000, 0, 0}, {0xffffffff, 38}} {
		got, err1 := run(joined, nr, arch, args)
		want, err2 := run(whole, nr, arch, args)
		if err1 != nil || err2 != nil || got != want {
			t.Fatalf("call %#x of %#x with %v: %#x (%v), one filter says %#x (%v)", nr, arch, args, got, err1, want, err2)
		}
	}
}

func TestNewerCallsOnEveryArchitecture(t *testing.T) {
	if native, _ := lib.GetNativeArch(); native != lib.ArchAMD64 {
		t.Skip("written for amd64")
	}
	filter, err := Compile(defaultProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	const eperm, enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for _, test := range []struct {
		name     string
		nr, arch uint32
		want     uint32
	}{
		{"fchmodat2", 452, unix.AUDIT_ARCH_X86_64, unix.SECCOMP_RET_ALLOW},
		{"fchmodat2", 452, unix.AUDIT_ARCH_I386, unix.SECCOMP_RET_ALLOW},
		{"fchmodat2", 452, unix.AUDIT_ARCH_AARCH64, unix.SECCOMP_RET_KILL_THREAD},
		{"future", 499, unix.AUDIT_ARCH_I386, enosys},
		{"future on x32", 499 | x32Bit, unix.AUDIT_ARCH_X86_64, eperm},
		{"fsopen, known and refused", 430, unix.AUDIT_ARCH_X86_64, eperm},
		{"read", 0, unix.AUDIT_ARCH_X86_64, unix.SECCOMP_RET_ALLOW},
		{"keyctl", 250, unix.AUDIT_ARCH_X86_64, eperm},
	} {
		got, err := run(filter.BPF, test.nr, test.arch, [6]uint64{})
		if err != nil || got != test.want {
			t.Errorf("%s on %#x: %#x, %v; want %#x", test.name, test.arch, got, err, test.want)
		}
	}
	// A default that allows has nothing to say about the future.
	filter, err = Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := run(filter.BPF, 499, unix.AUDIT_ARCH_X86_64, [6]uint64{}); got != unix.SECCOMP_RET_ALLOW || err != nil {
		t.Errorf("future under an allowing default: %#x, %v", got, err)
	}
}
