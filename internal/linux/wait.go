package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoChild is the part of siginfo_t that waitid(2) fills, as 64-bit Linux lays it out.
type siginfoChild struct {
	signo, errno, code, _ int32
	pid, uid              int32
	status                int32
}

// WaitStatus turns what waitid(2) filled in into a wait status as wait4(2) gives it. It is false when
// waitid found no child that had ended (WNOHANG).
func WaitStatus(info *unix.Siginfo) (status uint32, ok bool) {
	c := (*siginfoChild)(unsafe.Pointer(info))
	if c.pid == 0 {
		return 0, false
	}
	switch c.code {
	case 1: // CLD_EXITED
		return uint32(c.status&0xff) << 8, true
	case 3: // CLD_DUMPED
		return uint32(c.status&0x7f) | 0x80, true
	}
	return uint32(c.status & 0x7f), true // CLD_KILLED
}

// ChildPID is the process that waitid(2) told of, 0 for none.
func ChildPID(info *unix.Siginfo) int {
	return int((*siginfoChild)(unsafe.Pointer(info)).pid)
}
