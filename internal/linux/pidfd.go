package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoExitInfo means that the kernel does not tell the exit status of a
// process by its pidfd: before Linux 6.15, or when the pidfd was made by an
// older call path. Whoever needs the status must be the parent and wait.
var ErrNoExitInfo = errors.New("the kernel does not keep exit statuses for pidfds (needs Linux 6.15)")

// ProcessInfo is what PIDFD_GET_INFO (Linux 6.13, include/uapi/linux/pidfd.h)
// says about the process behind a pidfd.
type ProcessInfo struct {
	PID, PPID int
	// UID and GID are the effective ones.
	UID, GID uint32
	// CgroupID is the inode number of its v2 cgroup, 0 when there is none.
	CgroupID uint64
	// Exited is set once the process was reaped; then only Status is valid,
	// and it stays readable for as long as the pidfd is open.
	Exited bool
	Status unix.WaitStatus
}

// PidfdInfo reads what the kernel knows about the process behind pidfd. It
// works on a process that somebody else already reaped, which is how exit codes
// survive the death of the parent. ErrNoExitInfo is returned when the kernel is
// too old, or when the process is gone and its status was not kept.
func PidfdInfo(pidfd int) (ProcessInfo, error) {
	raw := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS | unix.PIDFD_INFO_CGROUPID | unix.PIDFD_INFO_EXIT}
	err := ignoreEINTR(func() error { return unix.IoctlPidfdInfo(pidfd, &raw) })
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return ProcessInfo{}, ErrNoExitInfo
	case errors.Is(err, unix.ESRCH):
		// Reaped, and the kernel is from before PIDFD_INFO_EXIT.
		return ProcessInfo{}, ErrNoExitInfo
	case err != nil:
		return ProcessInfo{}, fmt.Errorf("read info of pidfd %d: %w", pidfd, err)
	}
	info := ProcessInfo{
		PID:      int(raw.Pid),
		PPID:     int(raw.Ppid),
		UID:      raw.Euid,
		GID:      raw.Egid,
		CgroupID: raw.Cgroupid,
	}
	if raw.Mask&unix.PIDFD_INFO_EXIT != 0 {
		info.Exited, info.Status = true, unix.WaitStatus(raw.Exit_code)
	}
	return info, nil
}

// PidfdOpen opens a pidfd (pidfd_open(2), Linux 5.3) as a file that the runtime
// poller can wait on: it becomes readable when the process ends, before the reap.
func PidfdOpen(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open pidfd of process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid)), nil
}

// PidfdKill sends a signal by pidfd, so that a recycled PID is never hit. A
// process that is gone is no error: the sender wanted it gone or not to matter.
func PidfdKill(pidfd int, sig unix.Signal) error {
	err := unix.PidfdSendSignal(pidfd, sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send signal %d by pidfd %d: %w", int(sig), pidfd, err)
	}
	return nil
}

// ignoreEINTR repeats a call that a signal interrupted.
func ignoreEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
