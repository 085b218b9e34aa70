package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Release undoes one object. It succeeds when the object is gone already, whoever took it. Objects of kinds
// that the engine does not make are an error.
func (e *Engine) Release(ctx context.Context, o plan.Object) error {
	switch o.Kind {
	case plan.Process:
		return e.stop(ctx, o.Name)
	case plan.Cgroup:
		return removeGroup(ctx, e.cfg.Cgroups, o.Name)
	case plan.Namespace, plan.Mount:
		var d struct{ Private bool }
		if len(o.Data) > 0 {
			if err := json.Unmarshal(o.Data, &d); err != nil {
				return fmt.Errorf("release %s %s: %w", o.Kind, o.Name, err)
			}
		}
		if d.Private {
			return e.private.do(func() error { return unpin(o.Name) })
		}
		return unpin(o.Name)
	case plan.ResctrlGroup:
		return removeResctrl(o.Name)
	case plan.Dir:
		return removeTree(o.Name)
	}
	return fmt.Errorf("release %s %s: not an object of the engine", o.Kind, o.Name)
}

// Forget tells that a pod has gone: its monitor leaves with its last one.
func (e *Engine) Forget(pod string) {
	e.mu.Lock()
	p := e.procs[pod] // the pause process
	e.mu.Unlock()
	if p != nil {
		e.Ack(pod)
	}
	e.pool.forget(pod)
}

// KillLimit is how long the end of a process that was killed is waited for: longer than what it takes to replace a monitor
// that hangs.
const KillLimit = 20 * time.Second

// stop kills a container's init and waits until it has ended. The kernel's namespace rules end the rest of the
// container with it.
func (e *Engine) stop(ctx context.Context, id string) error {
	e.mu.Lock()
	p := e.procs[id]
	e.mu.Unlock()
	if p == nil || p.ended() {
		return nil
	}
	if err := e.Signal(id, unix.SIGKILL); err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("kill %s: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, KillLimit)
	defer cancel()
	prod := time.AfterFunc(time.Second, func() { e.Prod(ctx, id) })
	defer prod.Stop()
	if _, err := e.Wait(ctx, id); err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	return nil
}

// removeTree removes a directory of ours. What is mounted below it is detached first, never entered.
func removeTree(dir string) error {
	if !filepath.IsAbs(dir) || strings.Count(filepath.Clean(dir), "/") < 2 {
		return fmt.Errorf("remove directory %q: not a directory of a pod", dir)
	}
	err := removeAll(dir)
	if errors.Is(err, unix.EBUSY) {
		for _, point := range []string{"rootfs", "shm"} {
			_ = unpin(filepath.Join(dir, point))
		}
		err = removeAll(dir)
	}
	if err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	return nil
}

// removeGroup kills what is in a cgroup and removes it. The init of a start that was cut short may be on its way in: it
// was cloned, nobody wrote its pid down, and it has the join files open. Either it finds the group gone and ends, or it
// is in the way here and is killed in the next round.
func removeGroup(ctx context.Context, tree *cgroup.Tree, path string) (err error) {
	for _, limit := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, cleanupLimit} {
		if err = tree.Kill(ctx, path); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, limit)
		err = tree.Remove(short, path)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}
