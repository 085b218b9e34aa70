package engine

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

// StatusPaused is what runc adds to the statuses of runtime-spec: created or running, with a frozen cgroup.
const StatusPaused = "paused"

// group gives the cgroup of a container that has not stopped.
func (c *Command) group(verb, id string) (*cgroup.Tree, reading, error) {
	r, err := c.read(id)
	if err != nil {
		return nil, r, err
	}
	if s := specs.ContainerState(r.status); s == specs.StateStopped || s == specs.StateCreating {
		return nil, r, statusError(fmt.Sprintf("%s container %s: container not running: it is %s", verb, id, s))
	}
	if r.Cgroup == "" {
		return nil, r, fmt.Errorf("%s container %s: it has no cgroup: who made it may make none (see --rootless)", verb, id)
	}
	tree, err := c.cgroups()
	return tree, r, err
}

// frozen tells whether the container is paused, by this command or by whoever else freezes its cgroup.
func (c *Command) frozen(r reading) (bool, error) {
	if s := specs.ContainerState(r.status); r.Cgroup == "" || s != specs.StateRunning && s != specs.StateCreated {
		return false, nil
	}
	tree, err := c.cgroups()
	if err != nil {
		return false, err
	}
	frozen, err := tree.Frozen(r.Cgroup)
	if err != nil && !tree.Exists(r.Cgroup) {
		return false, nil // it has ended meanwhile
	}
	return frozen, err
}

// Pause stops all processes of a container and returns when they stand still. One that stands still already is
// no error.
func (c *Command) Pause(ctx context.Context, id string) error {
	tree, r, err := c.group("pause", id)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, cleanupLimit)
	defer cancel()
	if err := tree.Freeze(limited, r.Cgroup); err != nil {
		return fmt.Errorf("pause container %s: %w", id, err)
	}
	return nil
}

// Resume lets the processes of a paused container run again.
func (c *Command) Resume(id string) error {
	tree, r, err := c.group("resume", id)
	if errors.Is(err, ErrStatus) {
		return statusError(fmt.Sprintf("resume container %s: container not paused: it is %s", id, r.status))
	}
	if err != nil {
		return err
	}
	paused, err := c.frozen(r)
	if err == nil && !paused {
		return statusError(fmt.Sprintf("resume container %s: container not paused: it is %s", id, r.status))
	}
	if err == nil {
		err = tree.Thaw(r.Cgroup)
	}
	if err != nil {
		return fmt.Errorf("resume container %s: %w", id, err)
	}
	return nil
}

// Processes gives the ids of all processes of a container, as our PID namespace shows them; none when it has stopped.
func (c *Command) Processes(id string) ([]int, error) {
	tree, r, err := c.group("list processes of", id)
	if errors.Is(err, ErrStatus) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pids, err := tree.Procs(r.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("list processes of container %s: %w", id, err)
	}
	return pids, nil
}

// Update changes limits of a container; what resources do not mention stays. All of it is done or nothing.
func (c *Command) Update(id string, resources *specs.LinuxResources) error {
	tree, r, err := c.group("update", id)
	if err != nil {
		return err
	}
	if err := tree.Update(r.Cgroup, resources); err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	return nil
}
