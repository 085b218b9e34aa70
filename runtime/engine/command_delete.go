package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// stoppedError has the words by which containerd's shim knows runc's answer, and takes it as success.
func stoppedError(id string) error {
	return statusError(fmt.Sprintf("kill container %s: container not running: it has stopped", id))
}

// Kill sends a signal to a container's init, or with all to every process of its cgroup. One that has stopped is
// an ErrStatus. Without a PID namespace of its own the end of init ends nobody else, so SIGKILL goes to all.
func (c *Command) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	r, err := c.read(id)
	if err != nil {
		return err
	}
	all = all || sig == unix.SIGKILL && !r.OwnPIDs
	if r.status == string(specs.StateStopped) && !all {
		return stoppedError(id)
	}
	if all && r.Cgroup != "" {
		err = c.signalGroup(ctx, r.Cgroup, sig)
	}
	if r.status != string(specs.StateStopped) && (!all || sig == unix.SIGKILL) {
		err = errors.Join(err, killProcess(r.proc, sig))
		if sig == unix.SIGKILL {
			err = errors.Join(err, c.thawKilled(r))
		}
		if all && errors.Is(err, ErrGone) {
			err = nil
		}
	}
	if errors.Is(err, ErrGone) {
		return stoppedError(id)
	}
	if err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	return nil
}

// thawKilled lets the processes of a paused container meet their SIGKILL: a frozen cgroup of v1 would hold them.
func (c *Command) thawKilled(r reading) error {
	paused, err := c.frozen(r)
	if err != nil || !paused {
		return err
	}
	tree, err := c.cgroups()
	if err != nil {
		return err
	}
	return tree.Thaw(r.Cgroup)
}

// signalGroup sends a signal to each process of a cgroup, by pidfd: none can be mistaken for a later one.
func (c *Command) signalGroup(ctx context.Context, path string, sig unix.Signal) error {
	tree, err := c.cgroups()
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		return tree.Kill(ctx, path)
	}
	pids, err := tree.Procs(path)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
		_ = unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// openProcess opens a pidfd of a noted process. A pid that was given to another since is ErrGone.
func openProcess(n ProcessNote) (*os.File, error) {
	if n.PID <= 0 {
		return nil, ErrGone
	}
	fd, err := unix.PidfdOpen(n.PID, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			return nil, ErrGone
		}
		return nil, fmt.Errorf("open pidfd of process %d: %w", n.PID, err)
	}
	// Read after the open: from here on the pid is that of the descriptor's process, or of nobody.
	if s, ok := readStat(n.PID); !ok || s.start != n.StartTime || s.ended() {
		_ = unix.Close(fd)
		return nil, ErrGone
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func killProcess(n ProcessNote, sig unix.Signal) error {
	f, err := openProcess(n)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.PidfdSendSignal(int(f.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// Delete removes a container that has stopped, or was created and never started; with force a running one too.
// With force an unknown id is no error.
func (c *Command) Delete(ctx context.Context, id string, force bool) error {
	ct, err := c.open(id)
	if force && errors.Is(err, ErrNoContainer) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ct.close()
	n, err := ct.notes()
	if err != nil {
		return err
	}
	if s := ct.status(n); s == string(specs.StateRunning) && !force {
		r := reading{notes: n, status: s}
		if paused, err := c.frozen(r); err == nil && paused {
			s = StatusPaused
		}
		return statusError(fmt.Sprintf("cannot delete container %s that is not stopped: %s; kill it first, or use --force", id, s))
	}
	return ct.remove(ctx)
}

// release undoes one object of a container. It succeeds when the object is gone already.
func (ct *commandContainer) release(ctx context.Context, n notes, o plan.Object) error {
	switch o.Kind {
	case plan.Process:
		return endProcess(ctx, n.proc)
	case plan.Cgroup:
		tree, err := ct.cmd.cgroups()
		if err != nil {
			return err
		}
		return removeGroup(ctx, tree, o.Name)
	case plan.Mount, plan.Namespace:
		return unpin(o.Name)
	case plan.ResctrlGroup:
		return removeResctrl(o.Name)
	case plan.Hooks:
		// "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle
		// continue as if the hook had succeeded" (runtime-spec, runtime.md, Lifecycle).
		for _, h := range n.Poststop {
			if err := ct.runHooks(ctx, "poststop", n, []specs.Hook{h}, specs.StateStopped); err != nil {
				ct.cmd.warn("container %s: %v", ct.id, err)
			}
		}
		return nil
	}
	return fmt.Errorf("release %s %s: not an object of a command", o.Kind, o.Name)
}

// endProcess kills a process and waits until it has ended.
func endProcess(ctx context.Context, n ProcessNote) error {
	f, err := openProcess(n)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := linux.PidfdKill(int(f.Fd()), unix.SIGKILL); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, 100)
		switch {
		case ready > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", n.PID, err)
		case ctx.Err() != nil:
			return fmt.Errorf("wait for process %d: %w", n.PID, context.Cause(ctx))
		case time.Now().After(deadline):
			return fmt.Errorf("process %d does not die", n.PID)
		}
	}
}

// hookStatus reads the wait status of the hook that init ran last.
func (ct *commandContainer) hookStatus() uint32 {
	var b [4]byte
	if _, err := ct.page.ReadAt(b[:], plan.ProgressAtStatus); err != nil {
		return 0
	}
	return binary.NativeEndian.Uint32(b[:])
}
