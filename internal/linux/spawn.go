package linux

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// Child describes a process made from an executable that is held open.
type Child struct {
	Exe        int      // descriptor of the executable; -1 for /proc/self/exe
	Args       []string // Args[0] is what ps shows
	Files      []int    // descriptor n of the child is Files[n]; -1 leaves n closed
	CloneFlags uintptr  // new namespaces, CLONE_NEW…
	Setsid     bool
}

// Spawn starts the child and returns its pid and a pidfd. The executable is taken by descriptor, so that
// no path of another mount namespace can stand in for it (CVE-2019-5736), and the child gets the soft
// limit of open files that this process was started with, default signal dispositions and an empty mask.
func Spawn(c Child) (pid int, pidfd *os.File, err error) {
	path := "/proc/self/exe"
	if c.Exe >= 0 {
		path = "/proc/self/fd/" + strconv.Itoa(c.Exe)
	}
	files := make([]uintptr, len(c.Files))
	for i, fd := range c.Files {
		files[i] = uintptr(fd)
		if fd < 0 {
			files[i] = ^uintptr(0)
		}
	}
	raw := -1
	attr := &syscall.ProcAttr{Env: []string{}, Files: files, Sys: &syscall.SysProcAttr{Cloneflags: c.CloneFlags, PidFD: &raw, Setsid: c.Setsid}}
	// ForkExec clones from the calling thread; it must not be one that entered another namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err = syscall.ForkExec(path, c.Args, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("clone %s: %w", c.Args[0], err)
	}
	if raw < 0 {
		f, err := PidfdOpen(pid)
		return pid, f, err
	}
	return pid, os.NewFile(uintptr(raw), "pidfd"), nil
}
