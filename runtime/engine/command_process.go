package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// initName is what init calls itself until exec.
const initName = "cri-mini-init"

// Process is a child of this process: a container's init or an exec.
type Process struct {
	PID   int
	child spawned // what was cloned; a Fork may have left another process
}

// localSpawner clones inits as children of this process, which inherit its standard streams.
type localSpawner struct {
	helper string // path; it is sealed for each clone, see linux.SealFile
	slots  int
}

func (s *localSpawner) spawn(_ context.Context, req spawnRequest) (spawned, error) {
	files := make([]int, plan.FirstFD+s.slots)
	for i := range files {
		if files[i] = i; i >= plan.FirstFD {
			files[i] = -1 // empty, whatever our own caller left open there
		}
	}
	for i, slot := range req.slots {
		files[plan.FirstFD+int(slot)] = req.fds[i]
	}
	helper, _, err := linux.SealFile(s.helper)
	if err != nil {
		return spawned{}, err
	}
	defer helper.Close()
	pid, pidfd, err := linux.Spawn(linux.Child{Exe: int(helper.Fd()), Args: []string{"cri-mini-init", "init"}, Files: files, CloneFlags: uintptr(req.flags)})
	if err != nil {
		return spawned{}, err
	}
	return spawned{pid: pid, startTime: linux.StartTime(pid), pidfd: pidfd, at: time.Now()}, nil
}

// newRun prepares to walk a plan whose init is a child of this process.
func (c *Command) newRun(p *plan.Plan, j Journal, console func(*os.File) error, preserve int) (*run, error) {
	if _, err := os.Stat(c.cfg.Helper); err != nil {
		return nil, fmt.Errorf("find the helper cri-mini-init: %w; it belongs there, or beside this program", err)
	}
	tree, err := c.cgroups()
	if err != nil {
		return nil, err
	}
	r := &run{plan: p, journal: j, cgroups: tree, given: map[string]int{}, direct: true}
	for i := range preserve {
		r.given[plan.PathPreserved+strconv.Itoa(3+i)] = 3 + i
	}
	if console != nil {
		r.onConsole = func(master int) error {
			fd, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("keep terminal: %w", err)
			}
			_ = unix.SetNonblock(fd, true) // so that a read of it can be given up
			return console(os.NewFile(uintptr(fd), "terminal"))
		}
	}
	r.spawner = &localSpawner{helper: c.cfg.Helper, slots: len(p.Slots)}
	r.init()
	return r, nil
}

// Signal sends a signal; ErrGone when it has ended.
func (p *Process) Signal(sig unix.Signal) error {
	if p.PID == p.child.pid {
		if err := unix.PidfdSendSignal(int(p.child.pidfd.Fd()), sig, nil, 0); !errors.Is(err, unix.ESRCH) {
			return err
		}
		return ErrGone
	}
	// It is our child and not waited for, so its pid cannot belong to another.
	if err := unix.Kill(p.PID, sig); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return ErrGone
}

// Wait waits for the process and gives its exit code, 128+n for a signal n. It reaps every child that ends
// meanwhile: as a subreaper we inherit what the container leaves.
func (p *Process) Wait() (int, error) {
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return -1, fmt.Errorf("wait for process %d: %w", p.PID, err)
		case pid == p.PID && st.Signaled():
			return 128 + int(st.Signal()), nil
		case pid == p.PID && st.Exited():
			return st.ExitStatus(), nil
		}
	}
}

func (p *Process) note() ProcessNote {
	if p.PID == p.child.pid {
		return ProcessNote{PID: p.PID, StartTime: p.child.startTime}
	}
	return ProcessNote{PID: p.PID, StartTime: linux.StartTime(p.PID)}
}

// reap collects what was killed.
func (p *Process) reap() {
	pids := []int{p.PID}
	if p.child.pid != p.PID {
		pids = append(pids, p.child.pid)
	}
	for _, pid := range pids {
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	_ = p.child.pidfd.Close()
}

// diedInExec finds out about a process that was killed inside execve(2), for memory most likely: the kernel has
// closed its descriptors, the progress page is at exec, and yet no program ever ran. Its name may tell, for exec
// changes it; but a process that has been picked by the OOM killer gets what memory it still wants, so that most go
// through all of execve and die just before the program's first instruction.
func (c *Command) diedInExec(n ProcessNote, group string) bool {
	s, ok := readStat(n.PID)
	if ok && s.start == n.StartTime && s.ended() && s.comm == initName {
		return true
	}
	if c.oomKills(group) == 0 {
		return false
	}
	for range 200 { // its end is a matter of microseconds
		if s, ok := readStat(n.PID); !ok || s.start != n.StartTime || s.ended() {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false // the victim was a child of the program, which runs on
}
