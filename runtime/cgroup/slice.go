package cgroup

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/unit"
)

// startSlice has systemd make the slice that a name may be. One that is there,
// such as the kubelet's, is only limited.
func (t *Tree) startSlice(ctx context.Context, name string, plan *plan) error {
	if !unit.Is(name) {
		return nil
	}
	u, err := unit.Parse(name)
	if err != nil {
		return err
	}
	if u.Scope() {
		return errors.New("a scope begins with a process")
	}
	err = t.startIn(ctx, u, plan, nil, nil)
	if isError(err, errUnitExists) {
		return t.setProperties(name, u.Path, plan)
	}
	return err
}

// startIn starts a unit and marks the slices above it that systemd has had to
// start with it.
func (t *Tree) startIn(ctx context.Context, u unit.Unit, plan *plan, first, last []property) error {
	var fresh []string
	for up, err := unit.Parse(u.Slice); err == nil && !exists(t.main().dir(up.Path)); up, err = unit.Parse(up.Slice) {
		fresh = append(fresh, t.main().dir(up.Path))
	}
	err := t.startUnit(ctx, u.Name, plan, first, last)
	for _, dir := range fresh {
		setMark(dir)
	}
	return err
}

// dropParents has systemd forget the slices that it started because of us, once
// they are empty. Nothing is started in them meanwhile: systemd removes the empty
// cgroups below what it stops, new ones too.
func (t *Tree) dropParents(ctx context.Context, name string) error {
	u, err := unit.Parse(name)
	if err != nil || !unit.Is(name) {
		return nil
	}
	t.slices.Lock()
	defer t.slices.Unlock()
	for {
		if u, err = unit.Parse(u.Slice); err != nil {
			return nil // the root
		}
		dir := t.main().dir(u.Path)
		if names, err := subdirs(dir); !hasMark(dir) || err != nil || len(names) > 0 {
			return nil
		}
		err := t.bus.ask(ctx, func(ctx context.Context, s *session) error {
			return s.job(ctx, "StopUnit", u.Name, "ignore-dependencies")
		})
		if err != nil && !isError(err, errNoUnit) {
			return fmt.Errorf("stop %s: %w", u.Name, err)
		}
		for _, h := range t.list {
			_ = unix.Rmdir(h.dir(u.Path)) // where systemd has none; the kernel keeps one that is not empty
		}
	}
}
