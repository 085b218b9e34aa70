package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes the limits of a cgroup that exists; what resources do not
// mention stays, device rules too. Either all of it is set or none: when a file
// refuses its value, what was written before is taken back, and the error is a
// *WriteError that names the file and the value.
func (t *Tree) Update(path string, resources *specs.LinuxResources) error {
	name := path
	path, err := locate(name)
	if err != nil {
		return err
	}
	if err := t.update(name, path, resources); err != nil {
		return fmt.Errorf("update cgroup %s: %w", path, err)
	}
	return nil
}

func (t *Tree) update(name, path string, resources *specs.LinuxResources) error {
	if !t.Exists(path) {
		return fs.ErrNotExist
	}
	plan, err := t.settings(t.withMemoryLimit(path, resources))
	if err != nil {
		return err
	}
	if err := t.checkUsage(path, resources); err != nil {
		return err
	}
	if t.v2 != nil && exists(t.v2.dir(path)) {
		if err := t.enable(path, plan); err != nil {
			return err
		}
	}
	former, err := t.former(name, plan)
	if err != nil {
		return err
	}
	if err := t.setProperties(name, path, plan); err != nil {
		return err
	}
	for _, h := range t.list {
		err := apply(h.dir(path), plan.forHierarchy(t, h), false)
		if err == nil {
			err = t.applyDevices(h, path, plan.devices)
		}
		if err != nil {
			return errors.Join(err, takenBack(t.TakeBack(former)))
		}
	}
	return nil
}

// withMemoryLimit adds the limit in force to resources that change the one of memory and swap together, and not that of
// memory: v2 has a limit of swap alone, which is the difference.
func (t *Tree) withMemoryLimit(path string, r *specs.LinuxResources) *specs.LinuxResources {
	if t.v2 == nil || t.find("memory") != t.v2 || r == nil || r.Memory == nil || deref(r.Memory.Swap) <= 0 || deref(r.Memory.Limit) != 0 {
		return r
	}
	limit, err := readUint(t.v2.dir(path), "memory.max")
	if err != nil || limit == 0 || limit > math.MaxInt64 { // none: what that means for swap is said where it is set
		return r
	}
	with, memory := *r, *r.Memory
	inForce := int64(limit)
	memory.Limit, with.Memory = &inForce, &memory
	return &with
}

func takenBack(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("take back an earlier change: %w", err)
}

// checkUsage refuses a memory limit below what is in use and cannot be given
// back, when resources ask for that check: v2 would kill processes to get there.
// Pages of files are given back, so they do not count.
func (t *Tree) checkUsage(path string, r *specs.LinuxResources) error {
	if r == nil || r.Memory == nil || !deref(r.Memory.CheckBeforeUpdate) {
		return nil
	}
	h := t.find("memory")
	limit := deref(r.Memory.Limit)
	if h == nil || limit <= 0 {
		return nil
	}
	files := memoryFilesOf(h)
	usage, err := readUint(h.dir(path), files.usage)
	if err != nil {
		return err
	}
	text, err := readFile(h.dir(path), "memory.stat")
	if err != nil {
		return err
	}
	usage -= min(usage, lookup(text, files.inactiveFile)+lookup(text, files.activeFile))
	if uint64(limit) < usage {
		return fmt.Errorf("resources.memory.limit: %d is below the %d bytes in use", limit, usage)
	}
	return nil
}
