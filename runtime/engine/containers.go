package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// RunPod carries out a pod's plan: cgroup, namespaces, pins, shm. A pause process, if the plan has one, is
// known under the pod's id afterwards.
func (e *Engine) RunPod(ctx context.Context, podID string, p *plan.Plan, j Journal) error {
	r := e.newRun(podID, "", p, j)
	defer r.close()
	if p.Index(plan.Clone) < 0 {
		// Its first container will want a monitor; starting one may take as long as all of this.
		go e.pool.warm()
		return r.walk(ctx, len(p.Ops))
	}
	c, err := e.pool.of(podID)
	if err != nil {
		return err
	}
	proc := &process{id: podID, pod: podID, kind: wire.Setup, client: c, done: make(chan struct{})}
	return e.launch(ctx, r, proc, 0)
}

// StartRequest describes a container's start.
type StartRequest struct {
	ID, Pod  string
	Plan     *plan.Plan
	Journal  Journal
	Dir      string // of the FIFOs
	Log      string // file; "" writes no log
	Terminal bool
}

// Started tells about a container that runs.
type Started struct {
	PID int
	At  time.Time
}

// Start carries out a container's plan and returns once its program runs. An error of an op is an *OpError.
// Nothing of a start that failed runs on.
func (e *Engine) Start(ctx context.Context, req StartRequest) (started Started, err error) {
	err = e.whileNotBegun(ctx, func() error { started, err = e.startOnce(ctx, req); return err })
	return started, err
}

// whileNotBegun makes a request again when its monitor had died before it got it; another one takes its place soon.
func (e *Engine) whileNotBegun(ctx context.Context, f func() error) error {
	for range 50 {
		err := f()
		if !errors.Is(err, errNotBegun) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
	return f()
}

func (e *Engine) startOnce(ctx context.Context, req StartRequest) (Started, error) {
	c, err := e.pool.of(req.Pod)
	if err != nil {
		return Started{}, err
	}
	r := e.newRun(req.ID, req.ID, req.Plan, req.Journal)
	defer r.close()
	if err := r.intend(plan.Process, req.ID, plan.InHost); err != nil {
		return Started{}, err
	}
	proc := &process{id: req.ID, pod: req.Pod, kind: wire.Container, client: c, dir: req.Dir, log: req.Log, done: make(chan struct{})}
	r.onConsole = func(master int) error { return e.takeTerminal(ctx, proc, master) }
	if err := e.launch(ctx, r, proc, 0); err != nil {
		return Started{}, err
	}
	e.holdStdin(proc)
	if req.Journal != nil {
		if err := req.Journal.Note(NoteProcess, req.ID, ProcessNote{PID: proc.pid, StartTime: proc.startTime}); err != nil {
			return Started{}, err
		}
	}
	e.announce(proc)
	return Started{PID: proc.pid, At: r.child.at}, nil
}

// launch walks a plan with a clone and registers the process. If the walk fails, what was cloned is killed and
// collected before launch returns.
func (e *Engine) launch(ctx context.Context, r *run, proc *process, timeout time.Duration) error {
	r.spawner = &monitorSpawner{client: proc.client, msg: wire.Message{
		ID: proc.id, Pod: proc.pod, Kind: proc.kind, Dir: proc.dir, Log: proc.log, Terminal: r.onConsole != nil && r.plan.Index(plan.Console) >= 0, Timeout: int64(timeout),
		KillFile: r.killDir(),
	}}
	if proc.killDir = r.killDir(); timeout > 0 {
		proc.deadline = time.Now().Add(timeout)
	}
	// Known before it exists: news of a short life may come before the reply to the clone.
	e.mu.Lock()
	e.procs[proc.id] = proc
	e.mu.Unlock()
	r.onClone = func(s spawned) error { e.born(proc, s); return nil }
	err := r.walk(ctx, len(r.plan.Ops))
	if err == nil {
		err = e.settlePID(r, proc)
	}
	if err == nil {
		return nil
	}
	if r.child.pid == 0 {
		e.mu.Lock()
		delete(e.procs, proc.id)
		e.mu.Unlock()
		return err
	}
	e.killCloned(proc, r)
	select {
	case <-proc.done:
	case <-time.After(5 * time.Second):
	}
	e.Ack(proc.id)
	return err
}

// killCloned ends what a walk that failed has cloned. Its init has most likely died already, was reaped by the monitor,
// and its pid may be somebody else's by now: it is killed by descriptor, and who it forked only as a child of the monitor
// or, if that has died, of ours.
func (e *Engine) killCloned(proc *process, r *run) {
	_ = e.Signal(proc.id, unix.SIGKILL)
	pid := r.pid()
	if pid == r.child.pid {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	parent := os.Getpid()
	e.mu.Lock()
	if c := proc.client; c != nil && !c.isDead() {
		parent = c.pid
	}
	e.mu.Unlock()
	if linux.Parent(pid) == parent {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// born takes over what the clone told.
func (e *Engine) born(proc *process, s spawned) {
	e.mu.Lock()
	defer e.mu.Unlock()
	proc.pid, proc.startTime = s.pid, s.startTime
	if proc.ended() {
		_ = s.pidfd.Close()
		return
	}
	proc.pidfd = s.pidfd
	proc.hold()
	if !proc.lost {
		return
	}
	// Its monitor has died in between.
	if proc.lost = false; proc.kind == wire.Exec {
		go e.watchExec(proc)
		return
	}
	go e.rehome(context.Background(), proc)
}

// settlePID replaces the pid of the first process by that of the one that a Fork left.
func (e *Engine) settlePID(r *run, proc *process) error {
	pid := r.pid()
	if pid == proc.pid {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended already; the monitor tells how
	}
	if err != nil {
		return fmt.Errorf("open pidfd of process %d: %w", pid, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if proc.ended() {
		_ = unix.Close(fd)
		return nil
	}
	if proc.pidfd != nil {
		_ = proc.pidfd.Close()
	}
	proc.pid, proc.startTime, proc.pidfd = pid, linux.StartTime(pid), os.NewFile(uintptr(fd), "pidfd")
	return nil
}

// takeTerminal keeps a dup of the master and gives the monitor its own.
func (e *Engine) takeTerminal(ctx context.Context, proc *process, master int) error {
	fd, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep terminal: %w", err)
	}
	proc.tty = os.NewFile(uintptr(fd), "tty")
	_, err = proc.client.call(ctx, &wire.Message{Type: wire.TypeTTY, ID: proc.id}, master)
	return err
}

// Signal sends a signal to a container's init. ErrGone when it has ended.
func (e *Engine) Signal(id string, sig unix.Signal) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.procs[id]
	if p == nil || p.pidfd == nil || p.ended() {
		return ErrGone
	}
	err := unix.PidfdSendSignal(int(p.pidfd.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// Wait waits for a process to end.
func (e *Engine) Wait(ctx context.Context, id string) (Exit, error) {
	e.mu.Lock()
	p := e.procs[id]
	e.mu.Unlock()
	if p == nil {
		return Exit{}, ErrGone
	}
	select {
	case <-p.done:
		return p.exit, nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("wait for %s: %w", id, context.Cause(ctx))
	}
}

// ReopenLog makes the monitor open the log's path again, after what was written so far went to the old file.
func (e *Engine) ReopenLog(ctx context.Context, id string) error {
	return e.whileNotBegun(ctx, func() error {
		e.mu.Lock()
		var c *client
		if p := e.procs[id]; p != nil {
			c = p.client
		}
		e.mu.Unlock()
		if c == nil {
			return ErrGone
		}
		_, err := c.call(ctx, &wire.Message{Type: wire.TypeReopen, ID: id})
		return err
	})
}

// PID gives the pid of a process that runs.
func (e *Engine) PID(id string) (int, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.procs[id]
	if p == nil || p.ended() {
		return 0, false
	}
	return p.pid, true
}
