package cgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	library "github.com/opencontainers/cgroups/systemd"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/unit"
)

// Scope describes a scope to be started.
type Scope struct {
	PID       int // of the one process that it begins with
	Resources *specs.LinuxResources
	// Properties are "Name=value" with the value in GVariant's text form; they
	// have the last word.
	Properties []string
}

// StartScope has systemd make the scope with that name around a process, and
// moves the process into the hierarchies that systemd leaves alone. Limits are in
// force before it is in, but for those without a property: the process must stand
// still meanwhile. After an error Remove cleans up. A scope of that name that has
// failed before is forgotten; one that lives is an error.
func (t *Tree) StartScope(ctx context.Context, name string, s Scope) error {
	u, err := unit.Parse(name)
	if err != nil {
		return err
	}
	if err := t.startScope(ctx, u, s); err != nil {
		return fmt.Errorf("start %s: %w", u.Name, err)
	}
	return nil
}

func (t *Tree) startScope(ctx context.Context, u unit.Unit, s Scope) error {
	if !u.Scope() {
		return errors.New("processes are in scopes only")
	}
	plan, err := t.settings(s.Resources)
	if err != nil {
		return err
	}
	properties := []property{
		newProperty("Slice", u.Slice), newProperty("Delegate", true), newProperty("PIDs", []uint32{uint32(s.PID)}),
		newProperty("TasksMax", uint64(math.MaxUint64)), // the default is a share of the machine's
	}
	var last []property
	for _, text := range s.Properties {
		p, err := parseProperty(text)
		if err != nil {
			return err
		}
		last = append(last, p)
	}
	if err := t.startIn(ctx, u, plan, properties, last); err != nil {
		return err
	}
	for _, h := range t.list {
		if err := t.createIn(h, u.Path, plan); err != nil {
			return err
		}
	}
	return t.join(u.Path, s.PID, plan)
}

// startUnit starts a transient unit that counts what it uses, as any cgroup does
// that we make, and that leaves nothing behind when it has failed. It is stopped
// by us, not with the machine: Before=shutdown.target would kill containers while
// the kubelet still drains the node.
func (t *Tree) startUnit(ctx context.Context, name string, plan *plan, first, last []property) error {
	t.slices.RLock()
	defer t.slices.RUnlock()
	return t.bus.ask(ctx, func(ctx context.Context, s *session) error {
		version := 0
		v1Devices := len(plan.devices) > 0 && t.find("devices") != nil
		if v1Devices || needsVersion(plan.settings) {
			version = s.version()
		}
		properties := append([]property{
			newProperty("Description", "container cgroup "+name),
			newProperty("DefaultDependencies", false), newProperty("CollectMode", "inactive-or-failed"),
			newProperty("CPUAccounting", true), newProperty("MemoryAccounting", true), newProperty("TasksAccounting", true),
			newProperty(map[bool]string{true: "IOAccounting", false: "BlockIOAccounting"}[t.pure], true),
		}, first...)
		properties = append(properties, limitProperties(plan.settings, version, initialOf(plan.settings))...)
		properties = append(properties, oomPolicy(plan.settings, version)...)
		if v1Devices {
			devices, err := deviceProperties(plan, version)
			if err != nil {
				return err
			}
			properties = append(properties, devices...)
		}
		properties = append(properties, last...)
		start := func() error {
			return s.job(ctx, "StartTransientUnit", name, "replace", properties, []struct {
				Name       string
				Properties []property
			}{})
		}
		err := start()
		if isError(err, errUnitExists) && s.call(ctx, "ResetFailedUnit", name) == nil {
			err = start()
		}
		return err
	})
}

// initialOf gives what the files of a new cgroup hold.
func initialOf(list []setting) func(string) string {
	return func(file string) string {
		for _, s := range list {
			if s.file == file {
				return s.initial
			}
		}
		return map[string]string{"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}[file]
	}
}

// deviceProperties says the rules in systemd's words, for v1: it writes the files
// there anew now and then, and without a word of us "allow all". On v2 it attaches
// a program of its own only where it was given rules, and leaves ours alone.
func deviceProperties(plan *plan, version int) ([]property, error) {
	list, err := library.GenerateDeviceProps(&cgroups.Resources{Devices: plan.devices}, version)
	if err != nil {
		return nil, fmt.Errorf("device rules: %w", err)
	}
	var out []property
	for _, p := range list {
		out = append(out, property{p.Name, p.Value})
	}
	return out, nil
}

// join moves a process of one thread into the hierarchies where systemd has not.
func (t *Tree) join(path string, pid int, plan *plan) error {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return fmt.Errorf("look where systemd has put the process: %w", err)
	}
	in := memberships(string(text))
	for _, h := range t.list {
		switch {
		case !h.v2 && in[h.controllers[0]] != path:
			if err := writeFile(h.dir(path), "tasks", strconv.Itoa(pid)); err != nil {
				return err
			}
		case h.v2 && t.pure && in[""] != path:
			return fmt.Errorf("systemd has put the process into %s, not into %s", in[""], path)
		case h.v2 && in[""] != path && plan.needsV2():
			if err := writeFile(h.dir(path), "cgroup.procs", strconv.Itoa(pid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// memberships reads /proc/PID/cgroup (cgroups(7)): the path by controller, "" is v2.
func memberships(text string) map[string]string {
	in := map[string]string{}
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		for c := range strings.SplitSeq(controllers, ",") {
			in[c] = path
		}
	}
	return in
}

// stopUnit has systemd forget the unit that a name may be.
func (t *Tree) stopUnit(ctx context.Context, name string) error {
	if !unit.Is(name) {
		return nil
	}
	u, err := unit.Parse(name)
	if err != nil {
		return err
	}
	err = t.bus.ask(ctx, func(ctx context.Context, s *session) error {
		err := s.job(ctx, "StopUnit", u.Name, "replace")
		if err != nil && !isError(err, errNoUnit) {
			return fmt.Errorf("stop %s: %w", u.Name, err)
		}
		err = s.call(ctx, "ResetFailedUnit", u.Name)
		if err != nil && !isError(err, errNoUnit) {
			return fmt.Errorf("forget %s: %w", u.Name, err)
		}
		return nil
	})
	if errors.Is(err, ErrNoSystemd) && errors.Is(err, unix.ENOENT) {
		return nil // where no systemd runs there are no units
	}
	return err
}

// setProperties tells systemd of limits that are about to be written to the files
// of a unit. Of v1 it writes the device rules anew with them, a moment of "deny
// all" included, which the processes must not meet.
func (t *Tree) setProperties(name, path string, plan *plan) error {
	if !unit.Is(name) {
		return nil
	}
	u, err := unit.Parse(name)
	if err != nil {
		return err
	}
	now := func(file string) string {
		for _, h := range t.list {
			if text, err := readFile(h.dir(path), file); err == nil {
				return text
			}
		}
		return ""
	}
	ctx := context.Background()
	if u.Scope() && t.find("devices") != nil {
		if frozen, err := t.Frozen(path); err == nil && !frozen {
			if err := t.Freeze(ctx, path); err != nil && !errors.Is(err, ErrNoFreezer) {
				return err
			}
			defer func() { _ = t.Thaw(path) }()
		}
	}
	return t.bus.ask(ctx, func(ctx context.Context, s *session) error {
		version := 0
		if needsVersion(plan.settings) {
			version = s.version()
		}
		properties := limitProperties(plan.settings, version, now)
		if len(properties) == 0 {
			return nil
		}
		if err := s.call(ctx, "SetUnitProperties", u.Name, true, properties); err != nil {
			return fmt.Errorf("set properties of %s: %w", u.Name, err)
		}
		return nil
	})
}

// takeBackUnits tells systemd of former values that are about to be written.
func (t *Tree) takeBackUnits(list []Former) error {
	plans := map[string]*plan{}
	for _, f := range list {
		if f.Unit == "" {
			continue
		}
		if plans[f.Unit] == nil {
			plans[f.Unit] = &plan{}
		}
		file := f.Path[strings.LastIndexByte(f.Path, '/')+1:]
		for _, line := range f.Lines {
			plans[f.Unit].settings = append(plans[f.Unit].settings, setting{file: file, value: line})
		}
	}
	var errs []error
	for name, plan := range plans {
		path, err := locate(name)
		if err == nil && t.Exists(name) {
			err = t.setProperties(name, path, plan)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
