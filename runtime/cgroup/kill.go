package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kill sends SIGKILL to all processes in the cgroup and below it until there is
// none, new ones included, and thaws what is frozen so that they can die. An
// absent cgroup is empty. When the context ends first the error is a
// *StuckError, which names what is left and where it waits.
//
// Kill is the last thing to do with a cgroup: since Linux 6.14 a task that is
// cloned into one (CloneDir) after cgroup.kill was written there is killed too.
func (t *Tree) Kill(ctx context.Context, path string) error {
	path, err := locate(path)
	if err != nil {
		return err
	}
	if t.v2 != nil {
		// At once, and against forks too; on a hybrid machine this reaches the
		// tasks that were cloned into it. An absent cgroup gives ENOENT, and
		// what could not be killed this way is seen below.
		_ = writeFile(t.v2.dir(path), "cgroup.kill", "1")
	}
	dir := t.main().dir(path)
	wait := 50 * time.Microsecond
	for round := 0; ; round++ {
		pids, err := procs(dir)
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		if len(pids) == 0 {
			return t.thawV1(path)
		}
		if cause := ended(ctx); cause != nil {
			return &StuckError{Path: path, Processes: describe(pids), Err: cause}
		}
		// Forks outrun signals that are sent one by one: from the third round
		// on the cgroup is frozen meanwhile, which most never need.
		if err := t.signalAll(path, pids, round >= 2); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		sleep(ctx, wait)
		wait = min(2*wait, 10*time.Millisecond)
	}
}

// signalAll kills the processes and thaws them: on v1 a frozen one cannot die.
func (t *Tree) signalAll(path string, pids []int, freeze bool) error {
	dir := t.main().dir(path)
	if freezer := t.find("freezer"); freezer != nil && freeze {
		_ = writeFile(freezer.dir(path), "freezer.state", "FROZEN")
		if now, err := procs(dir); err == nil {
			pids = now
		}
	}
	const batch = 256 // descriptors at once
	var errs []error
	for group := range slices.Chunk(pids, batch) {
		if err := signalGroup(dir, group); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, t.thawV1(path))...)
}

// signalGroup kills by pidfd what is still in the cgroup once the pidfds are
// open, so that a number which was given to another process meanwhile is safe.
func signalGroup(dir string, pids []int) error {
	fds := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		}
	}
	still, err := procs(dir)
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := fds[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send SIGKILL to process %d: %w", pid, err)
		}
	}
	return nil
}

// StuckError says that processes did not die of SIGKILL in the time given.
type StuckError struct {
	Path      string
	Processes []StuckProcess
	Err       error
}

// StuckProcess is one of them: its name, its state as in ps(1) ("D" is waiting
// for a device or a network file system), and the kernel function it waits in.
type StuckProcess struct {
	PID                int
	Name, State, Waits string
}

func (e *StuckError) Error() string {
	var list []string
	for _, p := range e.Processes {
		text := fmt.Sprintf("%d (%s) in state %s", p.PID, p.Name, p.State)
		if p.Waits != "" {
			text += " at " + p.Waits
		}
		list = append(list, text)
	}
	return fmt.Sprintf("kill cgroup %s: still there: %s: %v", e.Path, strings.Join(list, ", "), e.Err)
}

func (e *StuckError) Unwrap() error { return e.Err }

// describe looks the first processes up in proc(5).
func describe(pids []int) []StuckProcess {
	const most = 8
	var list []StuckProcess
	for _, pid := range pids[:min(len(pids), most)] {
		proc := "/proc/" + strconv.Itoa(pid)
		stat, err := os.ReadFile(proc + "/stat")
		if err != nil {
			continue
		}
		p := StuckProcess{PID: pid}
		// "pid (name) state …"; the name may have parentheses itself.
		text := string(stat)
		if open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')'); open >= 0 && shut > open && len(text) > shut+2 {
			p.Name, p.State = text[open+1:shut], text[shut+2:shut+3]
		}
		if wchan, _ := os.ReadFile(proc + "/wchan"); string(wchan) != "0" {
			p.Waits = string(wchan)
		}
		list = append(list, p)
	}
	return list
}
