package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hashOf names what the filter depends on: all of the profile but where its
// listener is. Every list is led by its length and every string by its own, so
// that no two profiles write the same bytes. This runs at each start of a
// container; JSON would take ten times as long.
func hashOf(p *specs.LinuxSeccomp) string {
	h := hasher{buf: make([]byte, 0, 16<<10)}
	h.text(string(p.DefaultAction))
	h.pointer(p.DefaultErrnoRet)
	h.number(uint64(len(p.Architectures)))
	for _, a := range p.Architectures {
		h.text(string(a))
	}
	if p.Flags == nil { // nil and empty differ: see loadFlags
		h.number(^uint64(0))
	} else {
		h.number(uint64(len(p.Flags)))
	}
	for _, f := range p.Flags {
		h.text(string(f))
	}
	h.flag(p.ListenerPath != "")
	h.number(uint64(len(p.Syscalls)))
	for i := range p.Syscalls {
		h.rule(&p.Syscalls[i])
	}
	sum := sha256.Sum256(h.buf)
	return hex.EncodeToString(sum[:])
}

type hasher struct{ buf []byte }

func (h *hasher) number(n uint64) { h.buf = binary.AppendUvarint(h.buf, n) }

func (h *hasher) text(s string) {
	h.number(uint64(len(s)))
	h.buf = append(h.buf, s...)
}

func (h *hasher) flag(set bool) {
	if set {
		h.buf = append(h.buf, 1)
	} else {
		h.buf = append(h.buf, 0)
	}
}

func (h *hasher) pointer(n *uint) {
	h.flag(n != nil)
	if n != nil {
		h.number(uint64(*n))
	}
}

func (h *hasher) rule(s *specs.LinuxSyscall) {
	h.number(uint64(len(s.Names)))
	for _, name := range s.Names {
		h.text(name)
	}
	h.text(string(s.Action))
	h.pointer(s.ErrnoRet)
	h.number(uint64(len(s.Args)))
	for _, a := range s.Args {
		h.number(uint64(a.Index))
		h.number(a.Value)
		h.number(a.ValueTwo)
		h.text(string(a.Op))
	}
}
