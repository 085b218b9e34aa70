package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/unit"
)

// busyLimit is how long a cgroup that should be empty may stay busy: the kernel
// lets go of exiting tasks a moment after their parent could reap them.
const busyLimit = 2 * time.Second

// Remove removes the cgroup with all below it from every hierarchy, and the
// parents that Create had to make once they are empty; systemd forgets its unit,
// and one that cannot be told so is an error. An absent cgroup is no
// error. Processes must be gone; a cgroup that stays busy is an error that names
// them. It goes on past an error and joins them.
func (t *Tree) Remove(ctx context.Context, path string) error {
	name := path
	path, err := locate(name)
	if err != nil {
		return err
	}
	t.settle(name)
	var errs []error
	if err := t.stopUnit(ctx, name); err != nil {
		errs = append(errs, err)
	}
	for _, h := range t.list {
		if err := removeDir(ctx, h.dir(path)); err != nil {
			errs = append(errs, err)
			continue
		}
		if h != t.main() || !unit.Is(name) { // see dropParents
			removeMarked(h, filepath.Dir(path))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, t.dropParents(ctx, name))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", path, err)
	}
	return nil
}

// removeDir removes one directory, the children first only where there are any.
func removeDir(ctx context.Context, dir string) error {
	deadline := time.Now().Add(busyLimit)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		err := unix.Rmdir(dir)
		if ignoreAbsent(err) == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EINTR) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		names, _ := subdirs(dir)
		for _, name := range names {
			if err := removeDir(ctx, dir+"/"+name); err != nil {
				return err
			}
		}
		if cause := ended(ctx); cause != nil || time.Now().After(deadline) {
			return busyError(dir, err, cause)
		}
		if len(names) == 0 {
			sleep(ctx, wait)
		}
	}
}

// busyError says who keeps a cgroup.
func busyError(dir string, err, cause error) error {
	pids, _ := procs(dir)
	if len(pids) > 0 {
		err = fmt.Errorf("%w: it has processes %v", err, pids)
	}
	return errors.Join(&fs.PathError{Op: "rmdir", Path: dir, Err: err}, cause)
}

// removeMarked removes the parents that we made, upwards until one is not ours
// or not empty. The kernel decides what is empty, so a sibling is never lost.
func removeMarked(h *hierarchy, path string) {
	for ; path != "/"; path = filepath.Dir(path) {
		if dir := h.dir(path); !hasMark(dir) || unix.Rmdir(dir) != nil {
			return
		}
	}
}

// sleep waits, or less when the context ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
