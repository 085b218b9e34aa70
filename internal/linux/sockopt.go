package linux

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Getsockopt is getsockopt(2) for options that are structures of variable size, whose head tells the kernel what is
// asked for (x/sys has them with fixed types only). It returns how much of buf was filled.
func Getsockopt(fd, level, option int, buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, fmt.Errorf("get option %d of socket: no buffer", option)
	}
	size := uint32(len(buf)) // socklen_t
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("get option %d of socket: %w", option, errno)
	}
	return int(size), nil
}
