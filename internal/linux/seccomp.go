package linux

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LoadSeccomp loads an array of struct sock_filter for the calling thread
// (seccomp(2), SECCOMP_SET_MODE_FILTER) and returns what the kernel does: the
// listener's descriptor with SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0. The thread
// needs no_new_privs or CAP_SYS_ADMIN, and should be locked to its goroutine.
func LoadSeccomp(bpf []byte, flags uint32) (int, error) {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	if len(bpf) == 0 || len(bpf)%size != 0 || len(bpf)/size > 1<<16-1 {
		return -1, fmt.Errorf("load seccomp filter of %d bytes: not an array of %d-byte instructions", len(bpf), size)
	}
	// The bytes may be at any address; the kernel copies them as they are.
	prog := unix.SockFprog{Len: uint16(len(bpf) / size), Filter: (*unix.SockFilter)(unsafe.Pointer(&bpf[0]))}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(bpf)
	if errno != 0 {
		return -1, fmt.Errorf("load seccomp filter of %d instructions: %w", prog.Len, errno)
	}
	return int(fd), nil
}
