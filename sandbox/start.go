package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Reasons of a container's end, as kubelet and its users know them.
const (
	reasonCompleted  = "Completed"
	reasonError      = "Error"
	reasonOOM        = "OOMKilled"
	reasonStartError = "StartError"
	reasonUnknown    = "Unknown"
)

// startErrorCode is the exit code of a container whose start failed, as containerd and kubelet use it.
const startErrorCode = 128

// StartContainer starts a created container and returns when its program runs. A container that runs already
// is success.
func (m *Manager) StartContainer(ctx context.Context, id string) error {
	c, err := m.container(id)
	if err != nil {
		return err
	}
	_, err = m.join(ctx, "start "+c.ID, func(ctx context.Context) (string, error) { return c.ID, m.start(ctx, c) })
	return err
}

func (m *Manager) start(ctx context.Context, c *Container) error {
	p := c.pod
	work, pl, err := m.beginStart(ctx, c)
	if err != nil || pl == nil {
		return err
	}
	started, err := m.cfg.Engine.Start(work, engine.StartRequest{ID: c.ID, Pod: p.ID, Plan: pl, Journal: p.journal, Dir: c.dir(), Log: c.Log, Terminal: c.Config.GetTty()})
	p.mu.Lock()
	defer p.mu.Unlock()
	defer c.settled()
	if err == nil {
		c.started = started.At
		err = c.setState(ctrRunning)
	}
	if err != nil {
		return m.startFailed(ctx, c, err)
	}
	m.bury(p)
	m.tell(p, c.ID, criapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return nil
}

// beginStart notes the start and plans it. There is no plan for a container that runs already.
func (m *Manager) beginStart(ctx context.Context, c *Container) (context.Context, *plan.Plan, error) {
	p := c.pod
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.state != podReady:
		return nil, nil, fmt.Errorf("start container %s: pod sandbox %s is not ready: %w", c.ID, p.ID, ErrState)
	case c.state == ctrRunning:
		return nil, nil, nil
	case c.state != ctrCreated:
		return nil, nil, fmt.Errorf("start container %s: it is %s: %w", c.ID, c.state, ErrState)
	}
	pl, err := m.plan(c)
	if err != nil {
		return nil, nil, err
	}
	if err := c.setState(ctrStarting); err != nil {
		return nil, nil, err
	}
	return c.begin(ctx), pl, nil
}

// startFailed records why, gives back what the start made, and words the error. Caller holds the pod's mutex.
func (m *Manager) startFailed(ctx context.Context, c *Container, cause error) error {
	err := fmt.Errorf("start container %s: %w", short(c.ID), cause)
	c.reason, c.message, c.exitCode = reasonStartError, err.Error(), startErrorCode
	var op *engine.OpError
	if errors.As(cause, &op) && op.OOM {
		c.reason = reasonOOM
	}
	c.started, c.finished = time.Now(), time.Now()
	err = errors.Join(err, m.releaseProcess(context.WithoutCancel(ctx), c), c.setState(ctrExited))
	c.state = ctrExited // also where the journal does not take it: it is not starting any more
	close(c.ended)
	m.bury(c.pod)
	m.tell(c.pod, c.ID, criapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	return err
}

func short(id string) string { return id[:min(12, len(id))] }

// releaseProcess gives back what only a running container needs: its process, cgroup and mounts. Caller holds
// the pod's mutex.
func (m *Manager) releaseProcess(ctx context.Context, c *Container) error {
	if c.pod.journal == nil {
		return nil
	}
	var errs []error
	live := c.pod.journal.Live(c.ID)
	for i := len(live) - 1; i >= 0; i-- {
		switch live[i].Kind {
		case plan.Process, plan.Cgroup, plan.Mount, plan.Namespace:
			if err := m.cfg.Engine.Release(ctx, live[i]); err != nil {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, c.pod.journal.Release(live[i]))
		}
	}
	return errors.Join(errs...)
}

// StopContainer sends the stop signal and, when the timeout (seconds) has passed, SIGKILL. It returns when the
// end is recorded. A container that does not run, or is unknown, is success.
func (m *Manager) StopContainer(ctx context.Context, id string, timeout int64) error {
	c, err := m.container(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := settle(ctx, c); err != nil {
		return err
	}
	c.pod.mu.Lock()
	running, sig := c.state == ctrRunning, m.stopSignal(c)
	c.stopped = c.stopped || running
	c.pod.mu.Unlock()
	if !running {
		return nil
	}
	if timeout > 0 {
		if err := m.cfg.Engine.Signal(c.ID, sig); err != nil && !errors.Is(err, engine.ErrGone) {
			return fmt.Errorf("stop container %s: %w", c.ID, err)
		}
		select {
		case <-c.ended:
			return nil
		case <-time.After(engine.Seconds(timeout)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return m.killAll(ctx, []*Container{c})
}

// stopSignal is the one of the CRI config, else the image's, else SIGTERM.
func (m *Manager) stopSignal(c *Container) unix.Signal {
	if s := c.Config.GetStopSignal(); s != 0 {
		if sig := unix.SignalNum(strings.TrimPrefix(s.String(), "SIGNAL_")); sig != 0 {
			return sig
		}
	}
	if img, ok := m.cfg.Images.Resolve(c.Image.ID); ok && img.Config != nil {
		if sig, ok := parseSignal(img.Config.Config.StopSignal); ok {
			return sig
		}
	}
	return unix.SIGTERM
}

// watchExits records the end of each container.
func (m *Manager) watchExits() {
	for x := range m.cfg.Engine.Exits() {
		m.mu.RLock()
		c := m.ctrs[x.ID]
		m.mu.RUnlock()
		if c == nil { // the end of a start that failed
			m.cfg.Engine.Ack(x.ID)
			continue
		}
		go m.recordExit(c, x)
	}
}

func (m *Manager) recordExit(c *Container, x engine.Exit) {
	p := c.pod
	c.lockSettled()
	defer p.mu.Unlock()
	if c.state != ctrRunning {
		return // a failed start, which its caller records
	}
	m.exited(c, x)
	if err := c.setState(ctrExited); err != nil {
		m.log.Error("record exit", "pod", p.ID, "ctr", c.ID, "err", err)
		c.state = ctrExited
	}
	if err := m.releaseProcess(context.Background(), c); err != nil {
		m.log.Warn("clean up after exit", "pod", p.ID, "ctr", c.ID, "err", err)
	}
	close(c.ended)
	m.cfg.Engine.Ack(c.ID)
	m.bury(p)
	m.tell(p, c.ID, criapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// exited takes over how a container ended. The cgroup was not given back yet: whether the kernel killed for memory is
// known before anybody can ask.
func (m *Manager) exited(c *Container, x engine.Exit) {
	c.finished, c.exitCode = x.At, x.Code
	if c.finished.Before(c.started) {
		c.finished = c.started
	}
	switch {
	case x.Unknown:
		c.reason, c.message = reasonUnknown, "the exit code was lost with the processes that could have told it"
	case x.Code != 0 && m.cfg.Cgroups.OOMKills(c.cgroup()) > 0:
		c.reason, c.message = reasonOOM, "killed by the kernel for want of memory: it has no limit of its own, its pod or the node was full"
		if limit := c.Config.GetLinux().GetResources().GetMemoryLimitInBytes(); limit > 0 {
			c.message = fmt.Sprintf("killed by the kernel at its memory limit of %d bytes", limit)
		}
	case x.Code == 0:
		c.reason = reasonCompleted
	default:
		c.reason = reasonError
	}
	if x.Dropped > 0 {
		c.message = fmt.Sprintf("%d bytes of its log were dropped: no space on %s", x.Dropped, filepath.Dir(c.Log))
	}
}

// ReopenLog makes a running container's log go to the path again, after the kubelet rotated the file away.
func (m *Manager) ReopenLog(ctx context.Context, id string) error {
	c, err := m.container(id)
	if err != nil {
		return err
	}
	c.pod.mu.Lock()
	running := c.state == ctrRunning
	c.pod.mu.Unlock()
	if !running {
		return fmt.Errorf("reopen log of container %s: it does not run: %w", id, ErrState)
	}
	return m.cfg.Engine.ReopenLog(ctx, c.ID)
}
