package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Start lets a created container's program run, and returns when it does. If it cannot, the error is an *OpError
// and the container has stopped; delete removes it. A poststart hook that fails stops the container too
// (runtime-spec, runtime.md, Lifecycle, step 9).
func (c *Command) Start(ctx context.Context, id string) error {
	ct, err := c.open(id)
	if err != nil {
		return err
	}
	defer ct.close()
	n, err := ct.notes()
	if err != nil {
		return err
	}
	if s := ct.status(n); s != string(specs.StateCreated) {
		return statusError(fmt.Sprintf("start container %s: %s", id, whyNotStart(s)))
	}
	if n.NoProgram {
		return statusError(fmt.Sprintf("start container %s: its config.json has no process", id))
	}
	if err := openGate(ctx, c.Gate(id)); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	if err := c.explainOOM(ct.started(n), n.Cgroup); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	_ = os.Remove(c.Gate(id))
	return ct.poststart(ctx, n)
}

// whyNotStart has runc's words.
func whyNotStart(status string) string {
	switch specs.ContainerState(status) {
	case specs.StateStopped:
		return "cannot start a container that has stopped"
	case specs.StateRunning:
		return "cannot start an already running container"
	}
	return fmt.Sprintf("cannot start a container in the %s state", status)
}

// openGate writes the byte and waits until init has gone through exec or has died. Init holds the gate open,
// close-on-exec like everything that it has, and is the only one that reads it: when it lets go, the write end
// gets POLLERR (fifo(7)).
func openGate(ctx context.Context, path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("nobody waits at the gate: %w", ErrGone)
	}
	if err != nil {
		return fmt.Errorf("open gate %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte{1}); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("write to gate %s: %w", path, err)
	}
	for {
		// The context is looked at now and then: startContainer hooks may take long.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 200)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for exec: %w", err)
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("wait for exec: %w", context.Cause(ctx))
		}
	}
}

// started reads how far init came.
func (ct *commandContainer) started(n notes) error {
	at, errno := readProgress(ct.page)
	if errno == 0 && at >= n.Exec {
		group := ""
		if n.Limited {
			group = n.Cgroup
		}
		if !ct.cmd.diedInExec(n.proc, group) {
			return nil
		}
	}
	e := &OpError{Index: at, Summary: "?", Killed: errno == 0}
	for _, op := range n.Ops {
		if op.Index == at {
			e.Kind, e.Summary = op.Kind, op.Summary
		}
	}
	if errno != 0 {
		e.Err = errno
		e.explainHook(ct.hookStatus())
	}
	return e
}

// poststart runs the hooks of the runtime namespace that come after the start.
func (ct *commandContainer) poststart(ctx context.Context, n notes) error {
	err := ct.runHooks(ctx, "poststart", n, n.Poststart, specs.StateRunning)
	if err == nil {
		return nil
	}
	if kerr := killProcess(n.proc, unix.SIGKILL); kerr != nil && !errors.Is(kerr, ErrGone) {
		err = errors.Join(err, kerr)
	}
	return fmt.Errorf("start container %s: %w; it was killed", ct.id, err)
}

// runHooks runs hooks one after the other with the state on their standard input, until one fails.
func (ct *commandContainer) runHooks(ctx context.Context, kind string, n notes, hooks []specs.Hook, status specs.ContainerState) error {
	if len(hooks) == 0 {
		return nil
	}
	state := specs.State{Version: specs.Version, ID: ct.id, Status: status, Pid: n.proc.PID, Bundle: n.Bundle, Annotations: n.Annotations}
	if status == specs.StateStopped {
		state.Pid = 0
	}
	for _, h := range hooks {
		var timeout time.Duration
		if h.Timeout != nil {
			timeout = Seconds(int64(*h.Timeout))
		}
		if err := RunHook(ctx, h, timeout, state); err != nil {
			return fmt.Errorf("hook %s %s: %w", kind, h.Path, err)
		}
	}
	return nil
}
