package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// NewUserNS opens a user namespace that nobody lives in, with the maps that writeMaps writes into /proc/PID. A user
// namespace begins with a process, and threads cannot make one (unshare(2)), so there is one for a moment: a child that
// is traced stops before its first instruction, wherever it was executed from, and is killed there.
func NewUserNS(writeMaps func(pid int) error) (*os.File, error) {
	runtime.LockOSThread() // a tracer is one thread (ptrace(2)), and this one must not have entered another namespace
	defer runtime.UnlockOSThread()
	attr := &syscall.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Ptrace: true}}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"user-namespace"}, attr)
	if err != nil {
		return nil, fmt.Errorf("clone user namespace: %w", err)
	}
	defer endTraced(pid)
	if err := writeMaps(pid); err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
	if err != nil {
		return nil, fmt.Errorf("open user namespace: %w", err)
	}
	return f, nil
}

// endTraced kills a child of ours and reaps it; its stops are reported too, until then.
func endTraced(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		var st unix.WaitStatus
		_, err := unix.Wait4(pid, &st, unix.WALL, nil)
		if err == nil && (st.Exited() || st.Signaled()) || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
