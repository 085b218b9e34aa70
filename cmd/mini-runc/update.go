package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// update changes limits of a container: those of a file, or those of the options.
func update(_ context.Context, a *app, args []string) error {
	var file string
	fs := newFlags("update")
	both(fs.StringVar, &file, "resources", "r")
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
	} else if o.rdt != "" {
		return fmt.Errorf("--%s: linux.intelRdt is not supported", o.rdt)
	}
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		m.Swap = ptr(int64(-1)) // swap cannot be limited below memory
	}
	return a.engine().Update(rest[0], r)
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
	rdt          string // an option for resctrl
}

func (o *limitOptions) define(fs *flag.FlagSet) {
	var cpu specs.LinuxCPU
	usesCPU := func() *specs.LinuxCPU { o.resources.CPU = &cpu; return &cpu }
	var memory specs.LinuxMemory
	usesMemory := func() *specs.LinuxMemory { o.resources.Memory = &memory; return &memory }
	unsigned := func(name string, set func(*uint64)) {
		fs.Func(name, "", func(s string) error {
			return number(s, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }, set)
		})
	}
	signed := func(name string, set func(*int64)) {
		fs.Func(name, "", func(s string) error {
			return number(s, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }, set)
		})
	}
	size := func(name string, set func(*int64)) {
		fs.Func(name, "", func(s string) error { return number(s, parseSize, set) })
	}
	unsigned("cpu-period", func(n *uint64) { usesCPU().Period = n })
	signed("cpu-quota", func(n *int64) { usesCPU().Quota = n })
	unsigned("cpu-burst", func(n *uint64) { usesCPU().Burst = n })
	unsigned("cpu-share", func(n *uint64) { usesCPU().Shares = n })
	unsigned("cpu-rt-period", func(n *uint64) { usesCPU().RealtimePeriod = n })
	signed("cpu-rt-runtime", func(n *int64) { usesCPU().RealtimeRuntime = n })
	signed("cpu-idle", func(n *int64) { usesCPU().Idle = n })
	fs.Func("cpuset-cpus", "", func(s string) error { usesCPU().Cpus = s; return nil })
	fs.Func("cpuset-mems", "", func(s string) error { usesCPU().Mems = s; return nil })
	size("memory", func(n *int64) { usesMemory().Limit = n })
	size("memory-reservation", func(n *int64) { usesMemory().Reservation = n })
	size("memory-swap", func(n *int64) { usesMemory().Swap = n })
	size("kernel-memory", func(*int64) { o.kernelMemory = true })
	size("kernel-memory-tcp", func(*int64) { o.kernelMemory = true })
	signed("pids-limit", func(n *int64) { o.resources.Pids = &specs.LinuxPids{Limit: n} })
	fs.Func("blkio-weight", "", o.setBlockWeight)
	for _, name := range []string{"l3-cache-schema", "mem-bw-schema"} {
		fs.Func(name, "", func(string) error { o.rdt = name; return nil })
	}
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
