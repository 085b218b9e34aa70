package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// CommandExec describes a further process in a container.
type CommandExec struct {
	Container   string
	Plan        *plan.Plan // opens "pidfd"
	Console     func(master *os.File) error
	PreserveFDs int
	// IgnorePaused starts the process in a paused container too, where it stands still until the resume.
	IgnorePaused bool
}

// Exec starts a process in a running container and returns once its program runs. It writes nothing down: the
// process ends with the container, whose cgroup it is in. On an error nothing of it is left.
func (c *Command) Exec(ctx context.Context, req CommandExec) (*Process, error) {
	rd, err := c.read(req.Container)
	if err != nil {
		return nil, err
	}
	if rd.status != string(specs.StateRunning) && rd.status != string(specs.StateCreated) {
		return nil, statusError(fmt.Sprintf("exec in container %s: cannot exec in a %s container", req.Container, rd.status))
	}
	if paused, err := c.frozen(rd); err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", req.Container, err)
	} else if paused && !req.IgnorePaused {
		return nil, statusError(fmt.Sprintf("exec in container %s: cannot exec in a paused container (use --ignore-paused to override)", req.Container))
	}
	target, err := openProcess(rd.proc)
	if errors.Is(err, ErrGone) {
		return nil, statusError(fmt.Sprintf("exec in container %s: cannot exec in a stopped container", req.Container))
	}
	if err != nil {
		return nil, err
	}
	defer target.Close()
	r, err := c.newRun(req.Plan, nil, req.Console, req.PreserveFDs)
	if err != nil {
		return nil, err
	}
	defer r.close()
	r.given[plan.PathPidfd] = int(target.Fd())
	r.inside = insideOf{rd.proc.PID, specs.ContainerState(rd.status), rd.Bundle}
	p := &Process{}
	r.onClone = func(s spawned) error {
		p.child, p.PID = s, s.pid
		return nil
	}
	err = r.walk(ctx, len(req.Plan.Ops))
	if p.PID != 0 {
		p.PID = r.pid()
	}
	if err == nil {
		if !c.diedInExec(p.note(), "") { // its cgroup's count of kills may be older
			return p, nil
		}
		i := req.Plan.Index(plan.Exec)
		err = &OpError{Index: i, Kind: plan.Exec, Summary: req.Plan.Summary(i), Killed: true}
	}
	if p.PID != 0 {
		r.kill()
		p.reap()
	}
	return nil, fmt.Errorf("exec in container %s: %w", req.Container, c.explainOOM(err, rd.Cgroup))
}
