package compile

import (
	"path"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// openStdio opens what becomes the standard streams. A terminal opens itself.
func (b *builder) openStdio(given bool) {
	switch dir := b.o.Stdio.Dir; {
	case b.proc.Terminal:
	case dir != "":
		b.openFIFOs(dir)
	case given:
		for fd, name := range []string{"stdin", "stdout", "stderr"} {
			b.stdio[fd] = b.open(name, name, plan.OpenRead)
		}
	}
}

// openFIFOs makes them the container user's, so that a program can open /dev/stdout again. Output FIFOs are
// opened for reading too: no reader's death can give the program a SIGPIPE.
func (b *builder) openFIFOs(dir string) {
	uid, _ := hostID(b.spec.Linux.UIDMappings, b.proc.User.UID)
	gid, _ := hostID(b.spec.Linux.GIDMappings, b.proc.User.GID)
	fifo := func(name string, flags uint64) plan.Slot {
		slot := b.p.NewSlot(name)
		b.before(plan.MakeFifo(slot, path.Join(dir, name), uid, gid, flags))
		return slot
	}
	switch {
	case !b.o.Stdio.Stdin:
		b.stdio[0] = b.open("stdin", "/dev/null", plan.OpenRead)
	case b.o.Stdio.StdinOnce:
		b.stdio[0] = fifo("stdin", plan.OpenRead)
	default:
		b.stdio[0] = fifo("stdin", plan.OpenReadWrite)
	}
	b.stdio[1] = fifo("stdout", plan.OpenReadWrite)
	b.stdio[2] = fifo("stderr", plan.OpenReadWrite)
}

// console opens a terminal in the container's devpts and hands its master to the parent.
func (b *builder) console(bind bool) {
	if !b.proc.Terminal {
		return
	}
	var width, height uint
	if size := b.proc.ConsoleSize; size != nil {
		width, height = size.Width, size.Height
	}
	master := b.p.NewSlot("terminal")
	b.then(
		plan.OpenConsole(master, width, height, b.proc.User.UID, bind),
		plan.Meet(plan.BarrierConsole, plan.ParentWaits, master, 1),
	)
	if b.o.ConsoleSocket != "" {
		b.then(plan.Send(master, b.o.ConsoleSocket, "terminal"))
	}
}
