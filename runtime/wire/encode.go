package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort is the error of a packet that ends inside a field.
var ErrShort = errors.New("decode message: it ends inside a field")

// Encode gives the packet: version u16, type u16, then the fields in the order of the struct as varints and
// length-prefixed strings.
func (m *Message) Encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, 192)
	b = le.AppendUint16(b, Version)
	b = le.AppendUint16(b, uint16(m.Type))
	u, s := func(v uint64) { b = binary.AppendUvarint(b, v) }, func(v string) {
		b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
	}
	u(m.Seq)
	s(m.ID)
	s(m.Pod)
	u(uint64(m.Kind))
	u(uint64(m.PID))
	u(m.StartTime)
	u(m.CloneFlags)
	u(uint64(len(m.Slots)))
	for _, v := range m.Slots {
		u(uint64(uint32(v)))
	}
	s(m.Dir)
	s(m.Log)
	u(flag(m.Terminal))
	u(uint64(m.Timeout))
	s(m.KillFile)
	u(flag(m.Exited))
	u(uint64(m.Status))
	u(uint64(m.At))
	u(flag(m.TimedOut))
	u(flag(m.Unknown))
	u(m.Dropped)
	u(uint64(m.Errno))
	s(m.Error)
	return b
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

type reader struct {
	b   []byte
	err error
}

func (r *reader) u() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.err = nil, ErrShort
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) s() string {
	n := r.u()
	if n > uint64(len(r.b)) {
		r.b, r.err = nil, ErrShort
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

// Decode reads a packet. What a newer version has behind the known fields is ignored.
func Decode(b []byte) (*Message, error) {
	if len(b) < 4 {
		return nil, ErrShort
	}
	le := binary.LittleEndian
	if v := le.Uint16(b); v < 1 {
		return nil, fmt.Errorf("decode message: version %d", v)
	}
	m := &Message{Type: Type(le.Uint16(b[2:]))}
	r := &reader{b: b[4:]}
	m.Seq, m.ID, m.Pod, m.Kind = r.u(), r.s(), r.s(), Kind(r.u())
	m.PID, m.StartTime, m.CloneFlags = int(r.u()), r.u(), r.u()
	n := r.u()
	if n > MaxFDs {
		return nil, fmt.Errorf("decode message: %d slots, at most %d", n, MaxFDs)
	}
	for range n {
		m.Slots = append(m.Slots, int32(uint32(r.u())))
	}
	m.Dir, m.Log, m.Terminal, m.Timeout, m.KillFile = r.s(), r.s(), r.u() != 0, int64(r.u()), r.s()
	m.Exited, m.Status, m.At, m.TimedOut, m.Unknown = r.u() != 0, uint32(r.u()), int64(r.u()), r.u() != 0, r.u() != 0
	m.Dropped, m.Errno, m.Error = r.u(), uint32(r.u()), r.s()
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}
