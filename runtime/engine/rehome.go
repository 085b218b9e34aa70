package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// Adopt takes over a container of which the journal says that it runs and that no monitor knows, because
// daemon and monitor died. It tells whether it still runs.
func (e *Engine) Adopt(ctx context.Context, k Known, dir, log string) (bool, error) {
	fd, err := unix.PidfdOpen(k.PID, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return false, fmt.Errorf("open pidfd of process %d: %w", k.PID, err)
	}
	if err != nil || linux.StartTime(k.PID) != k.StartTime {
		if err == nil {
			_ = unix.Close(fd)
		}
		return false, nil
	}
	p := &process{id: k.ID, pod: k.Pod, kind: wire.Container, started: true, pid: k.PID, startTime: k.StartTime, dir: dir, log: log, done: make(chan struct{}), pidfd: os.NewFile(uintptr(fd), "pidfd")}
	e.mu.Lock()
	p.hold()
	e.procs[k.ID] = p
	e.mu.Unlock()
	e.holdStdin(p)
	short, cancel := context.WithTimeout(ctx, adoptLimit)
	defer cancel()
	if !e.rehome(short, p) {
		go e.rehome(context.Background(), p)
	}
	return true, nil
}

// onMonitorDeath gives the dead monitor's containers to others. They run on meanwhile: their streams are
// FIFOs that they hold open themselves. Its execs, whose pipes lead to us, we watch ourselves.
func (e *Engine) onMonitorDeath(c *client) {
	if e.reconnect(c) {
		return
	}
	e.mu.Lock()
	var orphans []*process
	for _, p := range e.procs {
		if p.client == c && !p.ended() {
			orphans = append(orphans, p)
		}
	}
	closing := e.closing
	e.mu.Unlock()
	if closing {
		return
	}
	_ = os.Remove(c.path)
	if len(orphans) > 0 {
		e.cfg.Log.Warn("monitor died, its containers get another", "pid", c.pid, "containers", len(orphans))
	}
	for _, p := range orphans {
		e.mu.Lock()
		p.lost = p.pidfd == nil // born takes it up, if something was born
		lost := p.lost
		e.mu.Unlock()
		switch {
		case lost:
		case p.kind == wire.Exec:
			go e.watchExec(p)
		default:
			e.rehome(context.Background(), p)
		}
	}
}

const (
	// rehomeRest is how long a new monitor is waited for at most before the next try.
	rehomeRest = time.Second
	// rehomeTries is how often it is tried before that is worth a line in the log.
	rehomeTries = 20
	// adoptLimit is how long a new daemon waits for that with each container before it goes on.
	adoptLimit = 5 * time.Second
)

// rehome gives a container whose monitor has died to another one, which may die too before it has answered. Without one
// it runs on, but nobody reads what it prints: it is tried until there is one again, descriptors and memory for it too.
// It is false when the context has ended before that.
func (e *Engine) rehome(ctx context.Context, p *process) bool {
	e.adopt(p)
	rest := 20 * time.Millisecond
	for try := 1; ; try++ {
		next, err := e.pool.of(p.pod)
		if err == nil {
			err = e.handOver(ctx, p, next)
		}
		switch {
		case err == nil, errors.Is(err, ErrGone):
			return true
		case errors.Is(err, ErrMonitorGone) && !errors.Is(err, errNotBegun) && next != nil:
			return true // its death takes the container up again
		case try == rehomeTries:
			e.cfg.Log.Error("give container to a new monitor; it is tried again", "pod", p.pod, "ctr", p.id, "err", err)
		}
		select {
		case <-time.After(rest):
		case <-p.done:
			return true
		case <-e.closed:
			return true
		case <-ctx.Done():
			return false
		}
		rest = min(2*rest, rehomeRest)
	}
}

// adopt has us watch for the end of a container whose monitor has died, whether or not another one can take it over.
func (e *Engine) adopt(p *process) {
	e.mu.Lock()
	first := !p.adopted && p.pidfd != nil
	if first {
		p.adopted, p.told = true, make(chan *wire.Message, 1)
	}
	e.mu.Unlock()
	if first {
		go e.watchAdopted(p)
	}
}

// reconnect finds out whether the monitor is dead or has only hung up on us, because we did not read for long.
func (e *Engine) reconnect(c *client) bool {
	e.mu.Lock()
	closing := e.closing
	e.mu.Unlock()
	if closing {
		return false
	}
	again, items, err := e.pool.dial(c.path)
	for errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) { // it may well live
		time.Sleep(rehomeRest)
		again, items, err = e.pool.dial(c.path)
	}
	if err != nil {
		return false
	}
	e.pool.replace(c, again)
	defer e.rehomeLost(c)
	for _, it := range items {
		closeAll(it.fds)
		e.mu.Lock()
		p := e.procs[it.msg.ID]
		if p != nil {
			p.client = again
		}
		e.mu.Unlock()
		if p != nil && it.msg.Exited && !p.adopted {
			e.end(p, exitOf(it.msg))
		}
	}
	return true
}

// rehomeLost gives away again what a monitor should have got and, hung up on, did not.
func (e *Engine) rehomeLost(c *client) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.procs {
		if p.client == c && p.kind == wire.Container && p.pidfd != nil && !p.ended() {
			go e.rehome(context.Background(), p)
		}
	}
}

func (e *Engine) handOver(ctx context.Context, p *process, c *client) error {
	e.mu.Lock()
	p.client = c
	if p.pidfd == nil {
		e.mu.Unlock()
		return ErrGone
	}
	tty := p.tty
	pidfd, err := unix.FcntlInt(p.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 0) // its end may close ours at any time
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("duplicate pidfd: %w", err)
	}
	defer unix.Close(pidfd)
	fds := []int{pidfd}
	if tty != nil {
		fds = append(fds, int(tty.Fd()))
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = c.call(ctx, &wire.Message{Type: wire.TypeAdopt, ID: p.id, Pod: p.pod, Kind: p.kind, PID: p.pid, StartTime: p.startTime, Dir: p.dir, Log: p.log, Terminal: tty != nil}, fds...)
	return err
}
