package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Create makes the cgroup in every hierarchy, with the parents that are
// missing, and sets its limits and device rules. No process is moved. It may be
// repeated: what is there is kept and set again. After an error Remove cleans up.
//
// The name of a slice has systemd make it; a scope needs a process, see
// StartScope. Resources may be nil. Rules about devices are set only when there are any;
// they begin with "deny all", and a cgroup without rules inherits its parent's.
func (t *Tree) Create(ctx context.Context, path string, resources *specs.LinuxResources) error {
	name := path
	path, err := locate(name)
	if err != nil {
		return err
	}
	plan, err := t.settings(resources)
	if err == nil {
		err = t.startSlice(ctx, name, plan)
	}
	if err != nil {
		return fmt.Errorf("create cgroup %s: %w", path, err)
	}
	for _, h := range t.list {
		if err := ended(ctx); err != nil {
			return fmt.Errorf("create cgroup %s: %w", path, err)
		}
		if err := t.createIn(h, path, plan); err != nil {
			return fmt.Errorf("create cgroup %s: %w", path, err)
		}
	}
	return nil
}

// createIn makes the directory in one hierarchy and applies what is for it.
func (t *Tree) createIn(h *hierarchy, path string, plan *plan) error {
	dir := h.dir(path)
	fresh, err := makeDir(h, path)
	if err != nil {
		return err
	}
	if h.v2 {
		if err := t.enable(path, plan); err != nil {
			return err
		}
	} else if h.has("cpuset") {
		if err := fillCpuset(h, path); err != nil {
			return err
		}
	}
	if err := apply(dir, plan.forHierarchy(t, h), fresh); err != nil {
		return err
	}
	return t.applyDevices(h, path, plan.devices)
}

// makeDir makes the directory and its parents. fresh says that it was not there.
// A sibling's Remove may take a parent away between two steps; then it is made
// again.
func makeDir(h *hierarchy, path string) (fresh bool, err error) {
	dir := h.dir(path)
	for range 100 {
		err = unix.Mkdir(dir, 0o755)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EEXIST):
			return false, nil
		case !errors.Is(err, unix.ENOENT):
			return false, &fs.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		parent := filepath.Dir(path)
		if parent == "/" {
			break
		}
		made, err := makeDir(h, parent)
		if err != nil {
			return false, err
		}
		if made {
			setMark(h.dir(parent))
		}
	}
	return false, &fs.PathError{Op: "mkdir", Path: dir, Err: err}
}

// fillCpuset gives a v1 cpuset its parent's CPUs and memory nodes where it has
// none: a new one is empty, and joining it fails with ENOSPC (cpusets(7)).
func fillCpuset(h *hierarchy, path string) error {
	dir := h.dir(path)
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readFile(dir, file)
		if err != nil {
			return err
		}
		if have != "" {
			continue
		}
		value, err := inheritedCpuset(h, filepath.Dir(path), file)
		if err != nil {
			return err
		}
		if err := writeFile(dir, file, value); err != nil {
			return err
		}
	}
	return nil
}

// inheritedCpuset returns the nearest ancestor's value and fills the empty ones
// on the way, for a child's cpuset must be a subset of its parent's.
func inheritedCpuset(h *hierarchy, path, file string) (string, error) {
	dir := h.dir(strings.TrimSuffix(path, "/"))
	value, err := readFile(dir, file)
	if err != nil || value != "" || path == "/" {
		return value, err
	}
	if value, err = inheritedCpuset(h, filepath.Dir(path), file); err != nil {
		return "", err
	}
	return value, writeFile(dir, file, value)
}

// managed are the v2 controllers that limits are set through.
var managed = []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"}

// enable hands the controllers down from the root to the parent of path, so that
// the files of path exist. On a hybrid machine that is only done for limits on
// huge pages: those of the others are elsewhere.
func (t *Tree) enable(path string, plan *plan) error {
	if !t.pure && !plan.needsV2() {
		return nil
	}
	var wanted []string
	for _, c := range managed {
		if t.v2.has(c) {
			wanted = append(wanted, c)
		}
	}
	parent := ""
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if err := enableIn(t.v2.dir(parent), wanted); err != nil {
			return err
		}
		parent += "/" + name
	}
	return awaitFiles(t.v2.dir(path), t.v2.dir(filepath.Dir(path)))
}

// awaitFiles waits for a controller that a sibling's Create is enabling at this
// moment: cgroup.subtree_control names it from the beginning of that, the files
// come later, one controller after the other in the order of cgroup.controllers.
// Optional limits would be passed over without a word. A write to the parent's
// file, though it changes nothing, returns when all of them are there.
func awaitFiles(dir, parent string) error {
	text, err := readFile(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	names := strings.Fields(text)
	if len(names) == 0 {
		return nil
	}
	last := names[len(names)-1]
	if _, err := readFile(dir, last+".max"); last == "cpuset" || last == "hugetlb" || !errors.Is(err, unix.ENOENT) {
		return nil // those two have no such file, and hardly ever come last
	}
	return writeFile(parent, "cgroup.subtree_control", "+"+last)
}

// enableIn adds controllers to one cgroup.subtree_control. Those that cannot be
// added one by one are passed over: a limit that needs one says so.
func enableIn(dir string, wanted []string) error {
	const file = "cgroup.subtree_control"
	text, err := readFile(dir, file)
	if err != nil {
		return err
	}
	have := strings.Fields(text)
	var missing []string
	for _, c := range wanted {
		if !slices.Contains(have, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 || writeFile(dir, file, strings.Join(missing, " ")) == nil {
		return nil
	}
	for _, c := range missing {
		_ = writeFile(dir, file, c)
	}
	return nil
}
