package main

import (
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// inherit adds the sockets of socket activation (sd_listen_fds(3)) to the descriptors that the program gets, before
// those of --preserve-fds, and tells it of them. The program is process 1 of its namespace.
func (m *making) inherit(p *specs.Process) error {
	if n := listenFDs(); n > 0 {
		p.Env = append(p.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
		m.preserveFDs += uint(n)
	}
	return checkInherited(int(m.preserveFDs))
}

// listenFDs is how many sockets the service manager has passed to this very process.
func listenFDs() int {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// checkInherited wants n descriptors from 3 on to be the caller's. What has come over exec is not close-on-exec, and all
// that this process has opened itself is, so none of the latter can be handed on by mistake.
func checkInherited(n int) error {
	for i := range n {
		flags, err := unix.FcntlInt(uintptr(3+i), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC != 0 {
			err = unix.EBADF
		}
		if err != nil {
			return fmt.Errorf("--preserve-fds: unable to stat preserved-fd %d (of %d): descriptor %d: %w", i, n, 3+i, err)
		}
	}
	return nil
}
