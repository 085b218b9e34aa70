package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// update changes limits of a container: those of a file, or those of the options.
func update(_ context.Context, a *app, args []string) error {
	var file string
	fs := newFlags("update")
	both(fs.StringVar, &file, "resources", "r", "JSON file with linux.resources, - for standard input; the other options do not count then")
	var o limitOptions
	o.define(fs)
	rest, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	if o.kernelMemory {
		a.log.warn("--kernel-memory, --kernel-memory-tcp: ignored, kernels have no such limits any more")
	}
	r := &o.resources
	if file != "" { // the options do not count then, as in runc
		if r, err = readResources(file); err != nil {
			return err
		}
	}
	if err := a.updateResctrl(resctrl, rest[0], o.l3, o.bandwidth); err != nil {
		return err
	}
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		m.Swap = ptr(int64(-1)) // swap cannot be limited below memory
	}
	return a.engine().Update(rest[0], r)
}

// resctrl is where the kernel has Intel's Resource Director Technology, if the processor has it and it is mounted.
const resctrl = "/sys/fs/resctrl"

// updateResctrl writes the schemata of a container's group in resctrl. What this machine, or a container without a group
// of its own, cannot have is refused in runc's words.
func (a *app) updateResctrl(root, id, l3, bandwidth string) error {
	var lines []string
	for _, o := range []struct{ value, option, resource, words string }{
		{l3, "l3-cache-schema", "L3", "Intel RDT/CAT: l3 cache schema is not enabled"},
		{bandwidth, "mem-bw-schema", "MB", "Intel RDT/MBA: memory bandwidth schema is not enabled"},
	} {
		if o.value == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "info", o.resource)); err != nil {
			return fmt.Errorf("--%s: %s: resctrl is missing: %w", o.option, o.words, err)
		}
		lines = append(lines, o.value)
	}
	if len(lines) == 0 {
		return nil
	}
	text, err := a.engine().Config(id)
	if err != nil {
		return err
	}
	spec := &specs.Spec{}
	if err := decode("config.json of "+id, text, spec); err != nil {
		return err
	}
	if spec.Linux == nil || spec.Linux.IntelRdt == nil {
		return errors.New("updating a non-existent Intel RDT configuration is not supported: config.json has no linux.intelRdt")
	}
	group := cmp.Or(spec.Linux.IntelRdt.ClosID, id)
	for _, line := range lines { // the kernel takes one resource at a time, and leaves the others
		if err := os.WriteFile(filepath.Join(root, group, "schemata"), []byte(line+"\n"), 0); err != nil {
			return fmt.Errorf("update container %s: schemata %q: %w", id, line, err)
		}
	}
	return nil
}

// readResources reads linux.resources of runtime-spec; - is standard input.
func readResources(file string) (*specs.LinuxResources, error) {
	text, err := []byte(nil), error(nil)
	if file == "-" {
		text, err = io.ReadAll(os.Stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("--resources: %w", err)
	}
	r := &specs.LinuxResources{}
	if err := decode(file, text, r); err != nil {
		return nil, fmt.Errorf("--resources: %w", err)
	}
	r.Devices = nil // runc leaves the device rules as they are
	return r, nil
}

// limitOptions collects the options of update into what a file would say.
type limitOptions struct {
	resources    specs.LinuxResources
	kernelMemory bool
	l3           string // schemata of resctrl
	bandwidth    string
}

func (o *limitOptions) define(fs *flag.FlagSet) {
	var cpu specs.LinuxCPU
	usesCPU := func() *specs.LinuxCPU { o.resources.CPU = &cpu; return &cpu }
	var memory specs.LinuxMemory
	usesMemory := func() *specs.LinuxMemory { o.resources.Memory = &memory; return &memory }
	unsigned := func(name, usage string, set func(*uint64)) {
		fs.Func(name, usage, func(s string) error {
			return number(s, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }, set)
		})
	}
	signed := func(name, usage string, set func(*int64)) {
		fs.Func(name, usage, func(s string) error {
			return number(s, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }, set)
		})
	}
	size := func(name, usage string, set func(*int64)) {
		fs.Func(name, usage, func(s string) error { return number(s, parseSize, set) })
	}
	unsigned("cpu-period", "length of a period of CPU quota, in microseconds", func(n *uint64) { usesCPU().Period = n })
	signed("cpu-quota", "CPU time in a period, in microseconds; -1 for no limit", func(n *int64) { usesCPU().Quota = n })
	unsigned("cpu-burst", "CPU time that may be saved up from earlier periods, in microseconds", func(n *uint64) { usesCPU().Burst = n })
	unsigned("cpu-share", "weight of its CPU time against that of others, 2 to 262144", func(n *uint64) { usesCPU().Shares = n })
	unsigned("cpu-rt-period", "period of realtime CPU time, in microseconds", func(n *uint64) { usesCPU().RealtimePeriod = n })
	signed("cpu-rt-runtime", "realtime CPU time in a period, in microseconds", func(n *int64) { usesCPU().RealtimeRuntime = n })
	signed("cpu-idle", "1 to run only when nobody else does (SCHED_IDLE), 0 not to", func(n *int64) { usesCPU().Idle = n })
	fs.Func("cpuset-cpus", "CPUs to run on, such as 0-2,5", func(s string) error { usesCPU().Cpus = s; return nil })
	fs.Func("cpuset-mems", "memory nodes to use", func(s string) error { usesCPU().Mems = s; return nil })
	size("memory", "memory limit: 67108864, 64M, 1.5GiB; -1 for none", func(n *int64) { usesMemory().Limit = n })
	size("memory-reservation", "memory that is protected or, on v1, reclaimed down to under pressure", func(n *int64) { usesMemory().Reservation = n })
	size("memory-swap", "limit of memory and swap together; -1 for none", func(n *int64) { usesMemory().Swap = n })
	size("kernel-memory", "(ignored: kernels have no such limit any more)", func(*int64) { o.kernelMemory = true })
	size("kernel-memory-tcp", "(ignored: kernels have no such limit any more)", func(*int64) { o.kernelMemory = true })
	signed("pids-limit", "number of tasks; -1 for no limit", func(n *int64) { o.resources.Pids = &specs.LinuxPids{Limit: n} })
	fs.Func("blkio-weight", "weight of its block IO, 10 to 1000", o.setBlockWeight)
	fs.StringVar(&o.l3, "l3-cache-schema", "", "schema of the L3 cache for Intel RDT (resctrl)")
	fs.StringVar(&o.bandwidth, "mem-bw-schema", "", "schema of the memory bandwidth for Intel RDT (resctrl)")
}

// setBlockWeight: zero changes nothing, as in runc.
func (o *limitOptions) setBlockWeight(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n != 0 && (n < 10 || n > 1000) {
		return errors.New("want a number from 10 to 1000")
	}
	if n != 0 {
		o.resources.BlockIO = &specs.LinuxBlockIO{Weight: ptr(uint16(n))}
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// number gives a value to set; "" changes nothing, as in runc.
func number[T any](s string, parse func(string) (T, error), set func(*T)) error {
	if s == "" {
		return nil
	}
	n, err := parse(s)
	if err == nil {
		set(&n)
	}
	return err
}

// parseSize reads bytes with a unit of 1024 each: 512, 10k, 1.5GiB; -1 is no limit.
func parseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	digits := strings.TrimRight(strings.ToLower(s), "kmgtpib ")
	unit := strings.TrimSpace(strings.ToLower(s[len(digits):]))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	n, err := strconv.ParseFloat(digits, 64)
	power := strings.Index("kmgtp", unit)
	if err != nil || n < 0 || len(unit) > 1 || power < 0 {
		return 0, errors.New("want a size such as 67108864, 64M or 1.5GiB, or -1 for no limit")
	}
	if unit != "" {
		n *= math.Pow(1024, float64(power+1))
	}
	if n >= math.MaxInt64 {
		return 0, errors.New("is more than 2^63-1 bytes")
	}
	return int64(n), nil
}
