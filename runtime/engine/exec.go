package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// ExecRequest describes an exec in a running container.
type ExecRequest struct {
	ID, Container  string
	Plan           *plan.Plan // opens "pidfd", and "stdin", "stdout" and "stderr" or a terminal
	Timeout        time.Duration
	Stdin          io.Reader // nil: /dev/null, or a terminal on which nobody types
	Stdout, Stderr io.Writer // nil: discarded
	Terminal       bool
	Sizes          iter.Seq[WindowSize] // of the terminal, as they come; nil for none
}

// Exec runs a command in a container and waits for it. The writers get its output, at their pace; a writer's
// error stops the copy of that stream only. A process that the command left behind and that holds the pipes does
// not delay the return. A read of Stdin may outlast the return. When the time is up the monitor kills the command
// with all it started and TimedOut is set; when the context ends, we do (see hangUp).
func (e *Engine) Exec(ctx context.Context, req ExecRequest) (x Exit, err error) {
	err = e.whileNotBegun(ctx, func() error { x, err = e.execOnce(ctx, req); return err })
	return x, err
}

func (e *Engine) execOnce(ctx context.Context, req ExecRequest) (Exit, error) {
	e.mu.Lock()
	target := e.procs[req.Container]
	if target == nil || target.pidfd == nil || target.ended() {
		e.mu.Unlock()
		return Exit{}, ErrGone
	}
	monitor, pid := target.client, target.pid
	e.mu.Unlock()
	r := e.newRun(req.ID, "", req.Plan, nil)
	defer r.close()
	std, err := newStdio(&req)
	defer std.close()
	if err != nil {
		return Exit{}, err
	}
	pidfd, err := e.dupPidfd(target)
	if err != nil {
		return Exit{}, err
	}
	defer unix.Close(pidfd)
	r.given["pidfd"] = pidfd
	r.inside = insideOf{PID: pid, Status: specs.StateRunning}
	std.give(r)
	proc := &process{id: req.ID, pod: target.pod, kind: wire.Exec, client: monitor, done: make(chan struct{})}
	if err := r.makeKillDir(); err != nil {
		return Exit{}, orGone(err, errors.Is(err, unix.ENOENT), pidfd)
	}
	defer r.dropKillDir()
	if err := e.launch(ctx, r, proc, req.Timeout); err != nil {
		return Exit{}, orGone(err, missed(err), pidfd)
	}
	r.close() // our copies of its pipes
	std.start()
	defer e.ackEnded(proc)
	return e.finishExec(ctx, proc, std)
}

// orGone is ErrGone with the error where that looks as if the container had ended on the way, and it has.
func orGone(err error, looks bool, pidfd int) error {
	if looks && ends(pidfd) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// missed: an exec did not find what goes with a container, its namespaces or its cgroups, or went with them.
func missed(err error) bool {
	var op *OpError
	if !errors.As(err, &op) {
		return false
	}
	switch op.Errno() {
	case unix.ESRCH, unix.ENODEV:
		return true
	case unix.ENOENT:
		return op.Kind == plan.OpenFile
	case unix.ENOMEM: // no process can be made in a PID namespace whose first one has ended (pid_namespaces(7))
		return op.Kind == plan.Fork
	}
	return op.Killed && !op.OOM
}

// endLimit is how long a container's first process may take from the loss of its namespaces to its end: it waits for
// the others in its PID namespace.
const endLimit = time.Second

// ends: a pidfd is readable from the end of its process on (pidfd_open(2)).
func ends(pidfd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(endLimit/time.Millisecond))
	return err == nil && n > 0
}

// ackEnded lets go of an exec, at its end: one that SIGKILL did not end is not waited for by its caller.
func (e *Engine) ackEnded(proc *process) {
	if proc.ended() {
		e.Ack(proc.id)
		return
	}
	go func() {
		<-proc.done
		e.Ack(proc.id)
	}()
}

// dupPidfd: the process may end, and its pidfd be closed, at any time.
func (e *Engine) dupPidfd(p *process) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.pidfd == nil {
		return -1, ErrGone
	}
	fd, err := unix.FcntlInt(p.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate pidfd: %w", err)
	}
	return fd, nil
}

func (e *Engine) finishExec(ctx context.Context, proc *process, std stdio) (Exit, error) {
	var late <-chan time.Time
	if left := time.Until(proc.deadline); !proc.deadline.IsZero() {
		late = time.After(left + KillLimit)
		// The monitor that should have killed it may be the one that hangs.
		prod := time.AfterFunc(left+hangUpGrace, func() { e.Prod(context.Background(), proc.id) })
		defer prod.Stop()
	}
	select {
	case <-proc.done:
		std.finish()
		return proc.exit, nil
	case <-ctx.Done():
		e.hangUp(proc)
	case <-late:
		// The kernel waits for a device or a server, or the container is frozen: nobody can end the command now.
		e.cfg.Log.Warn("exec does not end by SIGKILL", "pod", proc.pod, "pid", proc.pid)
	}
	std.close() // whoever was to read has gone: no writer may wait
	std.finish()
	x := Exit{ID: proc.id, Pod: proc.pod, TimedOut: ctx.Err() == nil}
	if proc.ended() {
		x = proc.exit
	}
	return x, context.Cause(ctx)
}

// hangUpGrace is how long a command may take to end on SIGHUP.
const hangUpGrace = time.Second

// hangUp ends an exec whose client has gone, with all that it started if that is in a group of its own.
func (e *Engine) hangUp(proc *process) {
	_ = e.Signal(proc.id, unix.SIGHUP)
	select {
	case <-proc.done:
	case <-time.After(hangUpGrace):
	}
	linux.KillGroup(proc.killDir)
	_ = e.Signal(proc.id, unix.SIGKILL)
	prod := time.AfterFunc(hangUpGrace, func() { e.Prod(context.Background(), proc.id) })
	defer prod.Stop()
	select {
	case <-proc.done:
	case <-time.After(KillLimit):
	}
}

// killDir is the cgroup directory that holds all that an exec starts: the group it joins under that name.
func (r *run) killDir() string {
	for i := range r.plan.Ops {
		if op := &r.plan.Ops[i]; op.Kind == plan.OpenFile && filepath.Base(filepath.Dir(op.Str[0])) == "exec-"+r.id {
			return filepath.Dir(op.Str[0])
		}
	}
	return ""
}

// makeKillDir makes the tracking group of an exec with a timeout: one directory in one hierarchy.
func (r *run) makeKillDir() error {
	dir := r.killDir()
	if dir == "" {
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make group of exec: %w", err)
	}
	return nil
}

func (r *run) dropKillDir() {
	dir := r.killDir()
	if dir == "" || !errors.Is(os.Remove(dir), unix.EBUSY) {
		return
	}
	// What was killed leaves soon. While something that the command left behind lives in it, the group stays, and goes
	// with the container's.
	go func() {
		for range 20 {
			time.Sleep(50 * time.Millisecond)
			if !errors.Is(os.Remove(dir), unix.EBUSY) {
				return
			}
		}
	}()
}
