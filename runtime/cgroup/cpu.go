package cgroup

import (
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cpu sets weight, quota, burst, idle and real-time budget. Zero means unset
// for all but burst and idle, as in runc; a negative quota means none.
func (b *builder) cpu(c *specs.LinuxCPU) {
	if c == nil || c.Shares == nil && c.Quota == nil && c.Period == nil && c.Burst == nil &&
		c.Idle == nil && c.RealtimeRuntime == nil && c.RealtimePeriod == nil {
		return
	}
	v2, ok := b.on("cpu", "cpu")
	if !ok {
		return
	}
	// An idle cgroup takes no weight, so idle comes first.
	if c.Idle != nil {
		b.add(setting{controller: "cpu", file: "cpu.idle", value: decimal(*c.Idle), initial: "0"})
	}
	if v2 {
		b.cpuV2(c)
		return
	}
	if n := deref(c.Shares); n != 0 {
		b.add(setting{controller: "cpu", file: "cpu.shares", value: strconv.FormatUint(n, 10), initial: "1024"})
	}
	if n := deref(c.Period); n != 0 {
		b.add(setting{controller: "cpu", file: "cpu.cfs_period_us", value: strconv.FormatUint(n, 10), initial: "100000"})
	}
	if n := deref(c.Quota); n != 0 {
		b.add(setting{controller: "cpu", file: "cpu.cfs_quota_us", value: decimal(max(n, -1)), initial: "-1"})
	}
	if c.Burst != nil {
		b.add(setting{controller: "cpu", file: "cpu.cfs_burst_us", value: strconv.FormatUint(*c.Burst, 10), initial: "0"})
	}
	if n := deref(c.RealtimePeriod); n != 0 {
		b.add(setting{controller: "cpu", file: "cpu.rt_period_us", value: strconv.FormatUint(n, 10), initial: "1000000"})
	}
	if n := deref(c.RealtimeRuntime); n != 0 {
		b.add(setting{controller: "cpu", file: "cpu.rt_runtime_us", value: decimal(n), initial: "0"})
	}
}

func (b *builder) cpuV2(c *specs.LinuxCPU) {
	if deref(c.RealtimePeriod) != 0 || deref(c.RealtimeRuntime) != 0 {
		b.fail("resources.cpu.realtimeRuntime: cgroup v2 has no real-time budget")
	}
	if n := deref(c.Shares); n != 0 {
		weight := cgroups.ConvertCPUSharesToCgroupV2Value(n)
		b.add(setting{controller: "cpu", file: "cpu.weight", value: strconv.FormatUint(weight, 10), initial: "100"})
	}
	quota, period := deref(c.Quota), deref(c.Period)
	if quota != 0 || period != 0 {
		b.add(setting{
			controller: "cpu", file: "cpu.max", initial: "max 100000",
			merge: func(now string) string { return cpuMax(now, quota, period) },
		})
	}
	if c.Burst != nil {
		b.add(setting{controller: "cpu", file: "cpu.max.burst", value: strconv.FormatUint(*c.Burst, 10), initial: "0"})
	}
}

// cpuMax replaces quota and period of a "quota period" line where they are not 0.
func cpuMax(now string, quota int64, period uint64) string {
	oldQuota, oldPeriod, _ := strings.Cut(now, " ")
	switch {
	case quota < 0 || oldQuota == "" && quota == 0:
		oldQuota = "max"
	case quota > 0:
		oldQuota = decimal(quota)
	}
	if period != 0 {
		oldPeriod = strconv.FormatUint(period, 10)
	}
	return strings.TrimSuffix(oldQuota+" "+oldPeriod, " ")
}

// cpuset pins to CPUs and memory nodes.
func (b *builder) cpuset(c *specs.LinuxCPU) {
	if c == nil || c.Cpus == "" && c.Mems == "" {
		return
	}
	if _, ok := b.on("cpuset", "cpu.cpus"); !ok {
		return
	}
	if c.Cpus != "" {
		b.add(setting{controller: "cpuset", file: "cpuset.cpus", value: c.Cpus})
	}
	if c.Mems != "" {
		b.add(setting{controller: "cpuset", file: "cpuset.mems", value: c.Mems})
	}
}

// deref returns what a pointer points to, or zero.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
