package plan

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The flat encoding, little-endian. All offsets count from the start; 0 is "none". Strings end in NUL and
// the last byte of a plan is NUL, so that a string can never run out of it.
//
//	header: magic, version, ops, slots, size   (5 × u32, padded to 24 bytes)
//	op:     index u32, kind u16, side u16, slot 2×i32, str 4×u32, list 3×{off u32, count u32},
//	        blob {off u32, len u32}, num 6×u64   (112 bytes)
//
// Only the ops that init sees are encoded: its own and the barriers. index is the op's place in the whole plan.
const (
	Magic      = 0x4e4c5043 // "CPLN"
	headerSize = 24
	opSize     = 112
)

type encoder struct {
	buf  []byte
	seen map[string]uint32
}

// Encode gives the flat form of the ops that the init side sees. An error names the op and the bound.
func (p *Plan) Encode() ([]byte, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	n := 0
	for i := range p.Ops {
		if p.Ops[i].Side != Parent {
			n++
		}
	}
	e := &encoder{buf: make([]byte, headerSize+n*opSize, headerSize+n*opSize+4096), seen: map[string]uint32{}}
	at := headerSize
	for i := range p.Ops {
		if p.Ops[i].Side == Parent {
			continue
		}
		if err := e.op(at, i, &p.Ops[i]); err != nil {
			return nil, fmt.Errorf("plan: op %d %s: %w", i, p.Ops[i].Kind, err)
		}
		at += opSize
	}
	e.buf = append(e.buf, 0)
	if len(e.buf) > MaxBytes {
		return nil, fmt.Errorf("plan: %d bytes, at most %d: arguments and environment are too large", len(e.buf), MaxBytes)
	}
	le := binary.LittleEndian
	le.PutUint32(e.buf[0:], Magic)
	le.PutUint32(e.buf[4:], Version)
	le.PutUint32(e.buf[8:], uint32(n))
	le.PutUint32(e.buf[12:], uint32(len(p.Slots)))
	le.PutUint32(e.buf[16:], uint32(len(e.buf)))
	return e.buf, nil
}

func (e *encoder) op(at, index int, op *Op) error {
	le := binary.LittleEndian
	b := func(off int) []byte { return e.buf[at+off:] }
	le.PutUint32(b(0), uint32(index))
	le.PutUint16(b(4), uint16(op.Kind))
	le.PutUint16(b(6), uint16(op.Side))
	for i, s := range op.Slot {
		le.PutUint32(b(8+4*i), uint32(s))
	}
	for i, s := range op.Str {
		off, err := e.str(s)
		if err != nil {
			return err
		}
		le.PutUint32(b(16+4*i), off)
	}
	total := 0
	for i, l := range op.List {
		if total += len(l) + 1; total > MaxStrings {
			return fmt.Errorf("%d strings, at most %d", total, MaxStrings)
		}
		off, err := e.list(l)
		if err != nil {
			return err
		}
		le.PutUint32(b(32+8*i), off)
		le.PutUint32(b(36+8*i), uint32(len(l)))
	}
	if len(op.Blob) > 0 {
		for len(e.buf)%8 != 0 {
			e.buf = append(e.buf, 0)
		}
		off := len(e.buf)
		e.buf = append(e.buf, op.Blob...)
		le.PutUint32(b(56), uint32(off))
		le.PutUint32(b(60), uint32(len(op.Blob)))
	}
	for i, v := range op.Num {
		le.PutUint64(b(64+8*i), v)
	}
	return nil
}

// str stores a string once. The empty string is offset 0.
func (e *encoder) str(s string) (uint32, error) {
	if s == "" {
		return 0, nil
	}
	if off, ok := e.seen[s]; ok {
		return off, nil
	}
	if strings.IndexByte(s, 0) >= 0 {
		return 0, fmt.Errorf("string %q holds a NUL byte", s)
	}
	off := uint32(len(e.buf))
	e.buf = append(append(e.buf, s...), 0)
	e.seen[s] = off
	return off, nil
}

// list stores strings one behind the other; an empty string in a list is a lone NUL.
func (e *encoder) list(l []string) (uint32, error) {
	if len(l) == 0 {
		return 0, nil
	}
	off := uint32(len(e.buf))
	for _, s := range l {
		if strings.IndexByte(s, 0) >= 0 {
			return 0, fmt.Errorf("string %q holds a NUL byte", s)
		}
		e.buf = append(append(e.buf, s...), 0)
	}
	return off, nil
}

// Encoded is a decoded flat plan: what the interpreter sees.
type Encoded struct {
	Ops   []Op
	Index []int // place of each op in the whole plan
	Slots int
}

// Decode reads the flat form. It refuses whatever the interpreter refuses, and never panics.
func Decode(b []byte) (*Encoded, error) {
	le := binary.LittleEndian
	if len(b) < headerSize+1 || len(b) > MaxBytes {
		return nil, fmt.Errorf("decode plan: %d bytes", len(b))
	}
	if le.Uint32(b) != Magic {
		return nil, fmt.Errorf("decode plan: magic %#x", le.Uint32(b))
	}
	if v := le.Uint32(b[4:]); v != Version {
		return nil, fmt.Errorf("decode plan: version %d, this is %d", v, Version)
	}
	n, slots := le.Uint32(b[8:]), le.Uint32(b[12:])
	if n > MaxOps || slots > MaxSlots || slots < uint32(FirstFree) || int(le.Uint32(b[16:])) != len(b) || b[len(b)-1] != 0 {
		return nil, fmt.Errorf("decode plan: malformed header")
	}
	if headerSize+int(n)*opSize >= len(b) {
		return nil, fmt.Errorf("decode plan: %d ops do not fit in %d bytes", n, len(b))
	}
	out := &Encoded{Slots: int(slots)}
	for i := range int(n) {
		op, index, err := decodeOp(b, headerSize+i*opSize, int32(slots))
		if err != nil {
			return nil, fmt.Errorf("decode plan: op %d: %w", i, err)
		}
		out.Ops = append(out.Ops, op)
		out.Index = append(out.Index, index)
	}
	return out, nil
}

func decodeOp(b []byte, at int, slots int32) (Op, int, error) {
	le := binary.LittleEndian
	r := b[at : at+opSize]
	op := Op{Kind: Kind(le.Uint16(r[4:])), Side: Side(le.Uint16(r[6:]))}
	d, ok := lookup(op.Kind)
	if !ok || !d.allows(op.Side) || op.Side == Parent {
		return op, 0, fmt.Errorf("kind %d on side %d", op.Kind, op.Side)
	}
	for i := range op.Slot {
		s := int32(le.Uint32(r[8+4*i:]))
		if s < -1 || s >= slots {
			return op, 0, fmt.Errorf("slot %d", s)
		}
		op.Slot[i] = Slot(s)
	}
	for i := range op.Str {
		s, _, ok := cstr(b, le.Uint32(r[16+4*i:]))
		if !ok {
			return op, 0, fmt.Errorf("string %d lies outside", i)
		}
		op.Str[i] = s
	}
	total := uint32(0)
	for i := range op.List {
		off, count := le.Uint32(r[32+8*i:]), le.Uint32(r[36+8*i:])
		if count > MaxStrings {
			return op, 0, fmt.Errorf("list %d has %d strings", i, count)
		}
		if total += count + 1; total > MaxStrings {
			return op, 0, fmt.Errorf("more than %d strings", MaxStrings)
		}
		for range count {
			s, next, ok := cstr(b, off)
			if !ok || off == 0 {
				return op, 0, fmt.Errorf("list %d lies outside", i)
			}
			op.List[i], off = append(op.List[i], s), next
		}
	}
	off, length := uint64(le.Uint32(r[56:])), uint64(le.Uint32(r[60:]))
	if off+length > uint64(len(b)) || length > 0 && off < headerSize {
		return op, 0, fmt.Errorf("blob lies outside")
	}
	if length > 0 {
		op.Blob = append([]byte(nil), b[off:off+length]...)
	}
	for i := range op.Num {
		op.Num[i] = le.Uint64(r[64+8*i:])
	}
	return op, int(le.Uint32(r)), nil
}

// cstr reads the string at off and tells where the next one begins.
func cstr(b []byte, off uint32) (s string, next uint32, ok bool) {
	if off == 0 {
		return "", 0, true
	}
	if off < headerSize || int(off) >= len(b) {
		return "", 0, false
	}
	end := int(off)
	for b[end] != 0 { // the last byte is NUL
		end++
	}
	return string(b[off:end]), uint32(end) + 1, true
}
