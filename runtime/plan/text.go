package plan

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// WriteTo prints the plan, one op a line: number, side, op, and what it works on. It is what `cri-mini plan`
// and `mini-runc plan` show and what the golden files hold.
func (p *Plan) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, p.String())
	return int64(n), err
}

// String is the text form.
func (p *Plan) String() string {
	var b strings.Builder
	for i := range p.Ops {
		fmt.Fprintf(&b, "%3d %-6s %s\n", i, p.Ops[i].Side, p.Describe(i))
	}
	return b.String()
}

// Describe words one op: its name and arguments, as in the text form.
func (p *Plan) Describe(i int) string {
	if i < 0 || i >= len(p.Ops) {
		return fmt.Sprintf("op %d", i)
	}
	op := &p.Ops[i]
	d, ok := lookup(op.Kind)
	if !ok {
		return fmt.Sprintf("unknown kind %d", op.Kind)
	}
	args := make([]string, 0, 8)
	for j, name := range d.strs {
		if name != "" && op.Str[j] != "" {
			args = append(args, name+"="+quote(op.Str[j]))
		}
	}
	for j, name := range d.lists {
		if name != "" && len(op.List[j]) > 0 {
			args = append(args, name+"="+quoteList(op.List[j]))
		}
	}
	for j, n := range d.nums {
		if n.name != "" {
			if v := formatNum(op, n.format, op.Num[j]); v != "" {
				args = append(args, n.name+"="+v)
			}
		}
	}
	if d.blob != "" && len(op.Blob) > 0 {
		args = append(args, d.blob+"="+formatBlob(op))
	}
	for j, name := range d.slots {
		if name == "" || op.Slot[j] == NoSlot {
			continue
		}
		arrow := "<-"
		if d.makesSlot(j) {
			arrow, name = "->", name[1:]
		}
		args = append(args, fmt.Sprintf("%s%s%d:%s", name, arrow, op.Slot[j], p.slotName(op.Slot[j])))
	}
	return strings.TrimRight(fmt.Sprintf("%-15s %s", d.name, strings.Join(args, " ")), " ")
}

func (p *Plan) slotName(s Slot) string {
	if s >= 0 && int(s) < len(p.Slots) {
		return p.Slots[s]
	}
	return "?"
}

// Summary words an op for an error message: the name and the one thing that a person needs to find the cause.
func (p *Plan) Summary(i int) string {
	if i < 0 || i >= len(p.Ops) {
		return fmt.Sprintf("op %d", i)
	}
	op := &p.Ops[i]
	name, s := op.Kind.Name(), op.Str
	switch op.Kind {
	case MountFS:
		return fmt.Sprintf("mount %s on %s", s[0], s[1])
	case MountBind:
		if s[0] == "" {
			return fmt.Sprintf("bind %s on %s", p.slotName(op.Slot[1]), s[1])
		}
		return fmt.Sprintf("bind %s on %s", s[0], s[1])
	case Exec:
		if len(op.List[1]) > 0 {
			return "exec " + op.List[1][0]
		}
	case FindProgram:
		return "find program to exec " + s[0]
	case Join, CgroupJoin:
		return name + " " + p.slotName(op.Slot[0])
	case Rlimit:
		return name + " " + formatNum(op, resourceName, op.Num[0])
	case User:
		return fmt.Sprintf("user %d:%d", op.Num[0], op.Num[1])
	case Unshare, Clone:
		return name + " " + formatNum(op, cloneFlags, op.Num[0])
	case Hook, Symlink, LSMExec, NsPin, MountPrivate, Barrier:
		if s[1] != "" {
			return name + " " + s[0] + " " + s[1]
		}
	case RootfsOverlay:
		return name + " on " + s[0]
	}
	if s[0] != "" {
		return name + " " + s[0]
	}
	return name
}

func quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n\"\\,[]") {
		return s
	}
	return strconv.Quote(s)
}

func quoteList(l []string) string {
	q := make([]string, len(l))
	for i, s := range l {
		q[i] = quote(s)
	}
	return "[" + strings.Join(q, " ") + "]"
}

func formatBlob(op *Op) string {
	switch op.Kind {
	case CgroupCreate, UnitStart, StateFile, SendFD:
		return string(op.Blob) // JSON, canonical
	case Seccomp:
		return fmt.Sprintf("%d-instructions", len(op.Blob)/8)
	case User:
		ids := make([]string, 0, len(op.Blob)/4)
		for i := 0; i+4 <= len(op.Blob); i += 4 {
			b := op.Blob[i:]
			ids = append(ids, strconv.FormatUint(uint64(b[0])|uint64(b[1])<<8|uint64(b[2])<<16|uint64(b[3])<<24, 10))
		}
		return "[" + strings.Join(ids, " ") + "]"
	}
	return hex.EncodeToString(op.Blob)
}
