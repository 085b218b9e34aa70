package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listen makes the CRI's socket. What a daemon that was killed left there is replaced; a socket that is served, and what
// is no socket, is not.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make socket's directory: %w", err)
	}
	if err := removeDead(path); err != nil {
		return nil, err
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	return l, err
}

// removeDead removes a socket that nobody serves.
func removeDead(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && fi.Mode().Type() != fs.ModeSocket {
		err = errors.New("what is there is not a socket, and stays")
	}
	if err == nil {
		err = refused(path)
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	return os.Remove(path)
}

// refused is nil where a connection is.
func refused(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out whether it is served: %w", err)
	}
	defer conn.Close()
	return fmt.Errorf("the process with pid %d serves it", peer(conn.(*net.UnixConn)))
}

// peer is the pid of who listens (SO_PEERCRED, unix(7)), 0 if that is not known.
func peer(conn *net.UnixConn) int32 {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var pid int32
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	return pid
}
