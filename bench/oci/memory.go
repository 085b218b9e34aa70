package main

import (
	"encoding/json"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// weigh measures memory: the most that each command had resident, the most that
// the container's init had when it stands before the program, and the smallest
// limit with which `true` still runs.
func (r *runtime) weigh() error {
	for _, args := range [][]string{{"run", "x"}, {"create", "x"}} {
		kib, err := r.peak(args...)
		if err != nil {
			return err
		}
		r.memory[args[0]] = kib
	}
	if err := r.weighInit(); err != nil {
		return err
	}
	for _, args := range [][]string{{"start", "x"}, {"delete", "--force", "x"}, {"exec", longLived, "/bin/busybox", "true"}} {
		kib, err := r.peak(args...)
		if err != nil {
			return err
		}
		r.memory[args[0]] = kib
	}
	var err error
	r.memory["limit"], err = r.smallestLimit()
	return err
}

// smallestLimit halves between a limit that is too small and one that is enough,
// down to 16 KiB.
func (r *runtime) smallestLimit() (int, error) {
	low, high := 16, 64<<10 // KiB
	for high-low > 16 {
		middle := (low + high) / 2 / 16 * 16
		ok, err := r.startsWith(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			high = middle
		} else {
			low = middle
		}
	}
	return high, nil
}

// startsWith tries a limit three times: what a start needs varies by some pages.
func (r *runtime) startsWith(kib int) (bool, error) {
	if err := r.configure("x", int64(kib)<<10, "/bin/busybox", "true"); err != nil {
		return false, err
	}
	for range 3 {
		_, err := r.call("run", "x")
		_ = r.command("delete", "--force", "x").Run()
		if err != nil {
			return false, nil
		}
	}
	return true, nil
}

// peak gives the most that a command had resident. It stops the command at its
// exit, when it still has its memory: what wait4(2) says counts the memory of
// whoever started a process too, and ours is larger.
func (r *runtime) peak(args ...string) (int, error) {
	goruntime.LockOSThread() // ptrace(2) is a thread's
	defer goruntime.UnlockOSThread()
	cmd := r.command(args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid, kib := cmd.Process.Pid, 0
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return 0, err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT); err != nil {
		return 0, fmt.Errorf("trace %s %s: %w", r.name, args[0], err)
	}
	for signal := 0; ; {
		if err := unix.PtraceCont(pid, signal); err != nil {
			return 0, fmt.Errorf("trace %s %s: %w", r.name, args[0], err)
		}
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			return 0, err
		}
		signal = 0
		switch {
		case status.Exited() && status.ExitStatus() == 0 && kib > 0:
			return kib, nil
		case status.Exited() || status.Signaled():
			return 0, fmt.Errorf("weigh %s %s: it ended with status %#x", r.name, args[0], status)
		case status.TrapCause() == unix.PTRACE_EVENT_EXIT:
			var err error
			if kib, err = highWater(pid); err != nil {
				return 0, err
			}
		case status.StopSignal() != unix.SIGTRAP: // that is an exec
			signal = int(status.StopSignal())
		}
	}
}

// highWater reads the most that a process has had resident, in KiB.
func highWater(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("read memory of process %d: no VmHWM in its status", pid)
}

// weighInit looks at the init of a created container.
func (r *runtime) weighInit() error {
	out, err := r.command("state", "x").Output()
	if err != nil {
		return fmt.Errorf("weigh init of %s: %w", r.name, err)
	}
	var state specs.State
	if err := json.Unmarshal(out, &state); err != nil {
		return fmt.Errorf("read state of %s: %w", r.name, err)
	}
	r.memory["init"], err = highWater(state.Pid)
	return err
}
