package cgroup

import (
	"errors"
	"fmt"
	"math"
	"strings"

	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"
)

// setting is one value for one cgroup file.
type setting struct {
	controller, file, value string
	// initial is what a new cgroup has: such a value is not written there.
	initial string
	// optional: a kernel or machine without this file is no error.
	optional bool
	// keyed: the file has a line for each device, led by its name, and value is
	// such a line; reset is the line that takes a device's out again.
	keyed bool
	reset string
	// merge makes the value from what the file has now; value is ignored.
	merge func(now string) string
}

// plan is what a set of resources asks for, in the order of writing.
type plan struct {
	settings []setting
	devices  []*devices.Rule
}

// forHierarchy picks the settings of one hierarchy's controllers.
func (p *plan) forHierarchy(t *Tree, h *hierarchy) []setting {
	var list []setting
	for _, s := range p.settings {
		if t.holds(h, s.controller) {
			list = append(list, s)
		}
	}
	return list
}

// holds reports whether settings of a controller go to this hierarchy. "" is
// whatever the unified map names.
func (t *Tree) holds(h *hierarchy, controller string) bool {
	if controller == "" {
		return h.v2
	}
	return t.find(controller) == h
}

// needsV2 reports whether a hybrid machine's v2 cgroup has to have files.
func (p *plan) needsV2() bool {
	for _, s := range p.settings {
		if s.controller == "" || s.controller == "hugetlb" {
			return true
		}
	}
	return false
}

func withoutInitial(list []setting) []setting {
	kept := make([]setting, 0, len(list))
	for _, s := range list {
		if s.merge != nil {
			s.value, s.merge = s.merge(s.initial), nil
		}
		if s.initial == "" || s.value != s.initial {
			kept = append(kept, s)
		}
	}
	return kept
}

// apply writes the settings of one hierarchy in order. fresh says that the cgroup
// is new, so that what equals the kernel's initial values need not be written.
//
// Some pairs of files check each other (period and quota, memory and memory
// with swap), and which one must go first depends on the values now in force:
// a refused value is tried again after its fellows.
func apply(dir string, list []setting, fresh bool) error {
	if fresh {
		list = withoutInitial(list)
	} else {
		list = orderMemory(dir, list)
	}
	var postponed []setting
	for _, s := range list {
		err := s.write(dir)
		if errors.Is(err, unix.EINVAL) && s.interdependent() {
			postponed = append(postponed, s)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, s := range postponed {
		if err := s.write(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *setting) interdependent() bool {
	switch s.file {
	case "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.max.burst", "cpu.rt_period_us":
		return true
	}
	return false
}

// orderMemory puts the limit of memory with swap before that of memory when it
// is raised: v1 holds memory ≤ memory+swap after each write.
func orderMemory(dir string, list []setting) []setting {
	memory, swap := -1, -1
	for i, s := range list {
		switch s.file {
		case "memory.limit_in_bytes":
			memory = i
		case "memory.memsw.limit_in_bytes":
			swap = i
		}
	}
	if memory < 0 || swap < memory {
		return list
	}
	now, err := readUint(dir, list[swap].file)
	wanted, perr := parseLimit(list[swap].value)
	if err != nil || perr != nil || wanted <= now {
		return list
	}
	ordered := append([]setting(nil), list...)
	ordered[memory], ordered[swap] = ordered[swap], ordered[memory]
	return ordered
}

func (s *setting) write(dir string) error {
	value := s.value
	if s.merge != nil {
		now, err := readFile(dir, s.file)
		if err != nil {
			return err
		}
		value = s.merge(now)
	}
	err := writeFile(dir, s.file, value)
	if s.optional && errors.Is(err, unix.ENOENT) {
		return nil
	}
	var refused *WriteError
	if errors.As(err, &refused) {
		refused.Hint = hint(dir, s, refused.Err)
	}
	return err
}

// hint explains an errno in the terms of the file.
func hint(dir string, s *setting, err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		controller, _, _ := strings.Cut(s.file, ".")
		return fmt.Sprintf("the %s controller here has no such limit, or is not enabled for this cgroup", controller)
	case errors.Is(err, unix.EBUSY) && strings.HasPrefix(s.file, "memory."):
		usage, _ := readUint(dir, "memory.usage_in_bytes")
		return fmt.Sprintf("%d bytes are in use and could not be reclaimed", usage)
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ERANGE) && !errors.Is(err, unix.ENODEV):
		return ""
	}
	switch s.file {
	case "memory.limit_in_bytes":
		return "it is above " + bounds(dir, "memory.memsw.limit_in_bytes") + "; give the limit of memory and swap together"
	case "memory.memsw.limit_in_bytes":
		return "it is below " + bounds(dir, "memory.limit_in_bytes")
	case "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max":
		return "both count microseconds, 1000 at least and a period 1000000 at most; no more than the parent's quota is allowed"
	case "cpuset.cpus", "cpuset.mems":
		return "it must be within the parent's, which is " + bounds(dir+"/..", s.file)
	}
	if s.keyed && errors.Is(err, unix.ENODEV) {
		return "there is no such device"
	}
	return ""
}

func bounds(dir, file string) string {
	text, err := readFile(dir, file)
	if err != nil {
		return file
	}
	return fmt.Sprintf("%s = %s", file, text)
}

// unlimited is what the v1 memory files say for "no limit": the highest number
// of whole pages.
func unlimited(n uint64) bool { return n >= math.MaxInt64-1<<16 }
