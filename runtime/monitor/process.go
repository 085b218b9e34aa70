package monitor

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// process is one init, exec or setup process, from its clone until the daemon acknowledges its exit.
type process struct {
	id, pod   string
	kind      wire.Kind
	pid       int
	startTime uint64
	pidfd     int // -1 once it has ended
	progress  int // progress page until it runs, -1 afterwards
	terminal  bool
	deadline  time.Time // zero: none
	killDir   string

	log         *logFile
	out, errout *stream
	tty         *stream
	stdin       int // holds the FIFO open for writing, -1 without
	viewers     []*viewer

	exited   bool
	status   uint32
	at       int64
	timedOut bool
	unknown  bool
}

// spawn clones an init with the slots that came along. The reply carries its pidfd.
func (m *monitor) spawn(msg *wire.Message, fds []int) (*wire.Message, int) {
	reply := &wire.Message{Type: wire.TypeSpawned, ID: msg.ID}
	defer closeAll(fds)
	if len(fds) != len(msg.Slots) {
		reply.Error = fmt.Sprintf("spawn: %d descriptors for %d slots", len(fds), len(msg.Slots))
		return reply, -1
	}
	if old := m.procs[msg.ID]; old != nil && !old.exited {
		reply.Error, reply.Errno = "spawn: the id is in use", uint32(unix.EEXIST)
		return reply, -1
	}
	m.acknowledge(msg.ID)
	p := &process{id: msg.ID, pod: msg.Pod, kind: msg.Kind, pidfd: -1, progress: -1, stdin: -1, terminal: msg.Terminal, killDir: msg.KillFile}
	if err := m.openLogs(p, msg.Log, msg.Dir); err != nil {
		fail(reply, "spawn", err)
		return reply, -1
	}
	if err := m.clone(p, msg, fds); err != nil {
		m.closeStreams(p)
		p.closeProgress()
		fail(reply, "spawn", err)
		return reply, -1
	}
	if msg.Timeout > 0 {
		p.deadline = m.now().Add(time.Duration(msg.Timeout))
	}
	m.procs[p.id], m.pods[p.pod], m.leave = p, true, false
	reply.PID, reply.StartTime, reply.At = p.pid, p.startTime, m.now().UnixNano()
	return reply, p.pidfd
}

func (m *monitor) clone(p *process, msg *wire.Message, fds []int) error {
	files := []int{m.null, m.null, m.null}
	for i, slot := range msg.Slots {
		if slot < 0 || slot >= plan.MaxSlots {
			return fmt.Errorf("slot %d is out of range", slot)
		}
		for len(files) <= plan.FirstFD+int(slot) {
			files = append(files, -1)
		}
		files[plan.FirstFD+int(slot)] = fds[i]
		if plan.Slot(slot) != plan.SlotProgress {
			continue
		}
		var err error
		if p.progress, err = unix.FcntlInt(uintptr(fds[i]), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return fmt.Errorf("keep progress page: %w", err)
		}
	}
	pid, pidfd, err := linux.Spawn(linux.Child{Exe: -1, Args: []string{"cri-mini-init", "init"}, Files: files, CloneFlags: uintptr(msg.CloneFlags)})
	if err != nil {
		return err
	}
	defer pidfd.Close()
	p.pid, p.startTime = pid, linux.StartTime(pid)
	fd, err := unix.FcntlInt(pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = m.follow(p, fd)
	}
	if err != nil { // it waits for its plan still
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
		for unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), nil, unix.WEXITED, nil) == unix.EINTR { //nolint:revive // again
		}
		return fmt.Errorf("watch process: %w", err)
	}
	return nil
}

// follow watches the process behind a pidfd, which it takes over.
func (m *monitor) follow(p *process, pidfd int) error {
	if err := m.watch(pidfd, unix.EPOLLIN, func(uint32) { m.ended(p) }); err != nil {
		_ = unix.Close(pidfd)
		return err
	}
	p.pidfd = pidfd
	return nil
}

// ended collects a process whose pidfd became readable. The first process of a plan with a Fork hands over
// to the one that stays: its pid is in the progress page.
func (m *monitor) ended(p *process) {
	status, unknown, done := waitStatus(p.pidfd)
	if !done {
		return
	}
	m.unwatch(p.pidfd)
	_ = unix.Close(p.pidfd)
	p.pidfd = -1
	if next := p.successor(status); next > 0 {
		if fd, err := unix.PidfdOpen(next, 0); err == nil {
			p.pid, p.startTime = next, linux.StartTime(next)
			if m.follow(p, fd) == nil {
				return
			}
		}
	}
	p.exited, p.status, p.unknown, p.at = true, status, unknown, m.now().UnixNano()
	p.deadline = time.Time{}
	p.closeProgress()
	m.drainStreams(p)
	m.dismiss(p)
	p.closeStdin()
	m.send(&wire.Message{
		Type: wire.TypeExit, ID: p.id, Pod: p.pod, Kind: p.kind, PID: p.pid, StartTime: p.startTime, Exited: true, Status: status,
		At: p.at, TimedOut: p.timedOut, Unknown: unknown, Dropped: p.dropped(),
	}, -1)
}

// successor reads the pid that a Fork left, 0 for none.
func (p *process) successor(status uint32) int {
	if p.progress < 0 || status != 0 {
		return 0
	}
	var page [plan.ProgressSize]byte
	n, err := unix.Pread(p.progress, page[:], 0)
	p.closeProgress()
	if err != nil || n < plan.ProgressAtPID+4 {
		return 0
	}
	b := page[plan.ProgressAtPID:]
	return int(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

func (p *process) closeProgress() {
	if p.progress >= 0 {
		_ = unix.Close(p.progress)
		p.progress = -1
	}
}

// waitStatus reaps a child, or asks the kernel about a process that is not our child (adopted from a monitor
// that died): since Linux 6.15 a pidfd remembers the exit code after the reap.
func waitStatus(pidfd int) (status uint32, unknown, done bool) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG, nil)
	if err == nil {
		if st, ok := linux.WaitStatus(&info); ok {
			return st, false, true
		}
		return 0, false, false
	}
	if !errors.Is(err, unix.ECHILD) {
		return 0, true, true
	}
	for range 50 { // its new parent reaps it at any moment
		if got, err := linux.PidfdInfo(pidfd); err == nil && got.Exited {
			return uint32(got.Status), false, true
		}
		time.Sleep(time.Millisecond)
	}
	return 0, true, true
}

func (m *monitor) acknowledge(id string) {
	p := m.procs[id]
	if p == nil || !p.exited {
		return
	}
	m.closeStreams(p)
	delete(m.procs, id)
}

// nextTimeout gives the time until the next deadline in milliseconds, -1 for none.
func (m *monitor) nextTimeout() int {
	wait := -1
	if !m.met {
		wait = int(connectLimit / time.Millisecond)
	}
	if !m.deaf.IsZero() {
		wait = int(deafness / time.Millisecond)
	}
	for _, p := range m.procs {
		if p.deadline.IsZero() {
			continue
		}
		left := min(p.deadline.Sub(m.now()), time.Hour) // epoll_wait(2) takes an int
		if ms := max(int(left/time.Millisecond)+1, 0); wait < 0 || ms < wait {
			wait = ms
		}
	}
	return wait
}

// killOverdue kills execs that ran out of time, with everything that they started: their cgroup holds it all,
// whatever session it moved to.
func (m *monitor) killOverdue() {
	for _, p := range m.procs {
		if p.deadline.IsZero() || m.now().Before(p.deadline) {
			continue
		}
		p.timedOut = true
		p.deadline = m.now().Add(100 * time.Millisecond) // again, until it is gone
		linux.KillGroup(p.killDir)
		if p.pidfd >= 0 {
			_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
		}
	}
}

// adopt takes over a container with its pidfd and, if it has one, its terminal's master. After an error it has nothing of
// it: the daemon asks again.
func (m *monitor) adopt(msg *wire.Message, fds []int) error {
	if len(fds) == 0 {
		return errors.New("no pidfd came along")
	}
	if p := m.procs[msg.ID]; p != nil {
		closeAll(fds)
		return nil // a retry
	}
	p := &process{id: msg.ID, pod: msg.Pod, kind: msg.Kind, pid: msg.PID, startTime: msg.StartTime, pidfd: -1, progress: -1, stdin: -1, terminal: msg.Terminal, killDir: msg.KillFile}
	if err := m.openLogs(p, msg.Log, msg.Dir); err != nil {
		closeAll(fds)
		return err
	}
	m.pods[p.pod] = true
	if len(fds) > 1 {
		if err := m.attachTerminal(p, fds[1]); err != nil {
			m.closeStreams(p)
			_ = unix.Close(fds[0])
			return err
		}
	}
	if err := m.follow(p, fds[0]); err != nil {
		m.closeStreams(p)
		return err
	}
	m.procs[p.id] = p
	return nil
}
