// Package plan owns the plan: a container's start as one numbered list of kernel operations, as plain data.
//
// A plan has two readers. The parent side (runtime/engine) holds the machine's rights and makes what must
// exist before and around the new process; the init side (runtime/initc, one C file) interprets its own ops
// inside the new namespaces and execs the user's program as the last of them. Where one must wait for the
// other there is a Barrier op that both see. The op table in ops.go is the single source: it generates
// runtime/initc/ops.h and docs/ops.md.
//
// Everybody may import plan; plan imports nothing of this module and no system call package.
// Invariant: Decode(Encode(p)) gives the ops that the init side will see, unchanged, and a plan that Encode
// accepts never makes the interpreter read outside the plan.
package plan

import "fmt"

// Version is the version of the flat encoding. The interpreter refuses any other.
const Version = 1

// Slot is an index into the plan's table of file descriptors. In the new process slot n is
// descriptor FirstFD+n, whichever side opened it.
type Slot int32

// The slots that every plan has.
const (
	NoSlot       Slot = -1
	SlotPlan     Slot = 0 // the encoded plan, read-only
	SlotProgress Slot = 1 // the shared progress page
	SlotSync     Slot = 2 // the socket of the barriers
	FirstFree    Slot = 3
)

// FirstFD is the descriptor of slot 0 in the new process; 0, 1 and 2 are its standard streams.
const FirstFD = 3

// Bounds of a plan. They are far above what any sane container needs and keep the interpreter's
// tables static.
const (
	MaxSlots   = 1024
	MaxOps     = 8192
	MaxStrings = 1 << 16 // strings in the lists of one op: argv and environment together
	MaxBytes   = 16 << 20
)

// Side says who carries out an op.
type Side uint8

// The sides.
const (
	Parent Side = iota + 1
	Init
	Both // a barrier
)

func (s Side) String() string {
	switch s {
	case Parent:
		return "parent"
	case Init:
		return "init"
	case Both:
		return "both"
	}
	return fmt.Sprintf("side(%d)", uint8(s))
}

// Op is one kernel operation. Which fields mean what is said by the op table; the constructors in
// build.go are the way to make one.
type Op struct {
	Kind Kind
	Side Side
	Slot [2]Slot
	Str  [4]string
	List [3][]string
	Blob []byte
	Num  [6]uint64
}

// Plan is the whole start, in order.
type Plan struct {
	Ops   []Op
	Slots []string // what each slot holds, for the reader of the text form
}

// New returns an empty plan with the slots that every plan has.
func New() *Plan {
	return &Plan{Slots: []string{"plan", "progress", "sync"}}
}

// NewSlot reserves the next slot and names it.
func (p *Plan) NewSlot(name string) Slot {
	p.Slots = append(p.Slots, name)
	return Slot(len(p.Slots) - 1)
}

// Add appends ops.
func (p *Plan) Add(ops ...Op) { p.Ops = append(p.Ops, ops...) }

// Index returns the position of the first op of a kind, or -1.
func (p *Plan) Index(kind Kind) int {
	for i := range p.Ops {
		if p.Ops[i].Kind == kind {
			return i
		}
	}
	return -1
}

// Check tells whether the plan is well formed: known kinds on a side that the table allows, slots in
// range and named, every slot filled before it is used, one clone at the most.
func (p *Plan) Check() error {
	if len(p.Ops) > MaxOps {
		return fmt.Errorf("plan: %d ops, at most %d", len(p.Ops), MaxOps)
	}
	if len(p.Slots) > MaxSlots {
		return fmt.Errorf("plan: %d slots, at most %d: the container has too many mounts", len(p.Slots), MaxSlots)
	}
	filled := make([]bool, len(p.Slots))
	for i := FirstFree - 1; i >= 0; i-- {
		if int(i) < len(filled) {
			filled[i] = true
		}
	}
	clones := 0
	for i := range p.Ops {
		if err := p.checkOp(&p.Ops[i], filled); err != nil {
			return fmt.Errorf("plan: op %d: %w", i, err)
		}
		if p.Ops[i].Kind == Clone {
			clones++
		}
	}
	if clones > 1 {
		return fmt.Errorf("plan: %d clones, at most one", clones)
	}
	return nil
}

func (p *Plan) checkOp(op *Op, filled []bool) error {
	d, ok := lookup(op.Kind)
	if !ok {
		return fmt.Errorf("unknown kind %d", op.Kind)
	}
	if !d.allows(op.Side) {
		return fmt.Errorf("%s cannot run on the %s side", d.name, op.Side)
	}
	for i, s := range op.Slot {
		if s == NoSlot || d.slots[i] == "" {
			continue
		}
		if s < 0 || int(s) >= len(filled) {
			return fmt.Errorf("%s: slot %d does not exist", d.name, s)
		}
		if d.makesSlot(i) {
			filled[s] = true
		} else if !filled[s] {
			return fmt.Errorf("%s: slot %d (%s) is used before it is filled", d.name, s, p.Slots[s])
		}
	}
	return nil
}

// Names of barriers that the engine knows.
const (
	BarrierConsole = "console"        // carries a terminal's master to the parent
	BarrierSeccomp = "seccomp-notify" // carries the descriptor that a seccomp listener reads from
	BarrierCreated = "created"        // create has done its part: what follows waits for start
)

// Paths of an OpenFile that name a descriptor instead of a file. The engine is given it by whoever runs the
// plan; stdin, stdout and stderr are of this kind too.
const (
	PathPidfd     = "pidfd" // of the container's init, in the plan of an exec
	PathPreserved = "fd"    // fd3, fd4, …: the descriptors that the program shall find there
)
