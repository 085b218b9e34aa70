package api

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
)

// alien is a program for a machine that this one is not: an ELF header, which is as far as the kernel reads.
func alien() string {
	machine := elf.EM_RISCV
	if runtime.GOARCH == "riscv64" {
		machine = elf.EM_X86_64
	}
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Entry: 0x10000,
		Ehsize: 64, Phentsize: 56, Shentsize: 64,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	return b.String() + string(make([]byte, 256))
}
