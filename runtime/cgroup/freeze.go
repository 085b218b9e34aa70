package cgroup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNoFreezer means that the machine cannot freeze cgroups.
var ErrNoFreezer = errors.New("this machine has no freezer controller")

// Freeze stops all tasks of the cgroup and of those below it, and returns when
// they have stopped. When that fails or the context ends they run again.
func (t *Tree) Freeze(ctx context.Context, path string) error {
	path, err := locate(path)
	if err != nil {
		return err
	}
	switch freezer := t.find("freezer"); {
	case freezer != nil:
		err = freezeV1(ctx, freezer.dir(path))
	case t.pure:
		err = freezeV2(ctx, t.v2.dir(path))
	default:
		err = ErrNoFreezer
	}
	if err == nil {
		return nil
	}
	if ignoreAbsent(err) != nil {
		err = errors.Join(err, t.Thaw(path))
	}
	return fmt.Errorf("freeze cgroup %s: %w", path, err)
}

// freezeV1 repeats the request as long as the state is FREEZING: v1 may miss
// tasks that appear meanwhile. Thawing now and then lets a stuck one get on.
func freezeV1(ctx context.Context, dir string) error {
	const file = "freezer.state"
	for round := 1; ; round++ {
		if err := writeFile(dir, file, "FROZEN"); err != nil {
			return err
		}
		state, err := readFile(dir, file)
		if err != nil || state == "FROZEN" {
			return err
		}
		if err := ended(ctx); err != nil {
			return err
		}
		if round%50 == 0 {
			if err := writeFile(dir, file, "THAWED"); err != nil {
				return err
			}
			sleep(ctx, 10*time.Millisecond)
		} else {
			sleep(ctx, 20*time.Microsecond)
		}
	}
}

func freezeV2(ctx context.Context, dir string) error {
	if err := writeFile(dir, "cgroup.freeze", "1"); err != nil {
		return err
	}
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		events, err := readFile(dir, "cgroup.events")
		if err != nil || lookup(events, "frozen") == 1 {
			return err
		}
		if err := ended(ctx); err != nil {
			return err
		}
		sleep(ctx, wait)
	}
}

// Thaw lets the tasks run again; one that is not frozen is no error.
func (t *Tree) Thaw(path string) error {
	path, err := locate(path)
	if err != nil {
		return err
	}
	switch freezer := t.find("freezer"); {
	case freezer != nil:
		err = writeFile(freezer.dir(path), "freezer.state", "THAWED")
	case t.pure:
		err = writeFile(t.v2.dir(path), "cgroup.freeze", "0")
	default:
		err = ErrNoFreezer
	}
	if err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", path, err)
	}
	return nil
}

// ThawAll thaws the cgroup and those below it, for what was killed to die. Unlike Thaw it does not mind a machine on
// which nothing need be done.
func (t *Tree) ThawAll(path string) error {
	path, err := locate(path)
	if err != nil {
		return err
	}
	return t.thawV1(path)
}

// Frozen reports whether the cgroup itself was frozen, not only one above it.
func (t *Tree) Frozen(path string) (bool, error) {
	path, err := locate(path)
	if err != nil {
		return false, err
	}
	if freezer := t.find("freezer"); freezer != nil {
		text, err := readFile(freezer.dir(path), "freezer.self_freezing")
		return text == "1", err
	}
	if !t.pure {
		return false, nil
	}
	text, err := readFile(t.v2.dir(path), "cgroup.freeze")
	return text == "1", err
}

// thawV1 thaws the cgroup and those below it where they are frozen: a container
// that was paused, and whoever paused it is gone. On v2 a frozen task dies.
func (t *Tree) thawV1(path string) error {
	freezer := t.find("freezer")
	if freezer == nil {
		return nil
	}
	return walk(freezer.dir(path), func(dir string) error {
		state, err := readFile(dir, "freezer.state")
		if err != nil || state == "THAWED" {
			return err
		}
		return writeFile(dir, "freezer.state", "THAWED")
	})
}
