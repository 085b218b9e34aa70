package cgroup

import (
	"cmp"
	"math"
	"strconv"
	"strings"
	"time"
)

// Stats is what a cgroup and all below it use. Sizes are in bytes, CPU times in
// nanoseconds, counts since the cgroup was made. Parts that this machine does not
// measure are nil.
type Stats struct {
	Time   time.Time
	CPU    *CPUStats
	Memory *MemoryStats
	Swap   *SwapStats
	Pids   *PidsStats
	// PSI has "cpu", "memory" and "io" (Documentation/accounting/psi.rst).
	PSI map[string]PSI
}

// CPUStats counts CPU time, and how often a quota held the cgroup back.
type CPUStats struct {
	UsageNS, UserNS, SystemNS       uint64
	Periods, Throttled, ThrottledNS uint64
}

// PidsStats counts tasks. Limit is math.MaxUint64 for none.
type PidsStats struct{ Current, Limit uint64 }

// PSI is the pressure on one resource: how long some or all tasks waited.
type PSI struct{ Some, Full PSILine }

// PSILine holds percentages over 10, 60 and 300 seconds, and the sum in µs.
type PSILine struct {
	Avg10, Avg60, Avg300 float64
	TotalUS              uint64
}

// Add adds what another cgroup uses. Pressure cannot be added up and goes, and so do limits.
func (s *Stats) Add(o Stats) {
	s.Time, s.PSI = o.Time, nil
	s.CPU = sum(s.CPU, o.CPU, func(a *CPUStats, b CPUStats) {
		a.UsageNS, a.UserNS, a.SystemNS = a.UsageNS+b.UsageNS, a.UserNS+b.UserNS, a.SystemNS+b.SystemNS
		a.Periods, a.Throttled, a.ThrottledNS = a.Periods+b.Periods, a.Throttled+b.Throttled, a.ThrottledNS+b.ThrottledNS
	})
	s.Memory = sum(s.Memory, o.Memory, (*MemoryStats).add)
	s.Swap = sum(s.Swap, o.Swap, func(a *SwapStats, b SwapStats) { a.Usage, a.Limit = a.Usage+b.Usage, math.MaxUint64 })
	s.Pids = sum(s.Pids, o.Pids, func(a *PidsStats, b PidsStats) { a.Current, a.Limit = a.Current+b.Current, math.MaxUint64 })
}

// sum adds b to a copy of a; what one of them lacks is the other's.
func sum[T any](a, b *T, add func(*T, T)) *T {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	total := *a
	add(&total, *b)
	return &total
}

// Stats reads the counters. An absent cgroup gives fs.ErrNotExist.
func (t *Tree) Stats(path string) (Stats, error) {
	path, err := locate(path)
	if err != nil {
		return Stats{}, err
	}
	stats, err := t.Usage(path)
	if err != nil {
		return Stats{}, err
	}
	if t.find("cpuacct") != nil {
		if err := t.cpuStats(path, &stats); err != nil {
			return Stats{}, err
		}
	}
	return stats, t.pidsStats(path, &stats)
}

// Usage is Stats as far as the kubelet asks every few seconds for each container,
// from half the files: of CPU the time alone where the rest is in files of its
// own, and no tasks.
func (t *Tree) Usage(path string) (Stats, error) {
	path, err := locate(path)
	if err != nil {
		return Stats{}, err
	}
	stats := Stats{Time: time.Now()}
	if h := t.find("cpuacct"); h != nil {
		n, err := readUint(h.dir(path), "cpuacct.usage")
		if err != nil {
			return Stats{}, err
		}
		stats.CPU = &CPUStats{UsageNS: n}
	} else if err := t.cpuStats(path, &stats); err != nil {
		return Stats{}, err
	}
	if err := t.memoryStats(path, &stats); err != nil {
		return Stats{}, err
	}
	t.pressure(path, &stats)
	return stats, nil
}

// cpuStats reads all there is of CPU; on v1 that is beside the time, which Usage has read.
func (t *Tree) cpuStats(path string, stats *Stats) error {
	var cpu CPUStats
	if h := t.find("cpuacct"); h != nil {
		cpu = *stats.CPU
		for file, field := range map[string]*uint64{"cpuacct.usage_user": &cpu.UserNS, "cpuacct.usage_sys": &cpu.SystemNS} {
			n, err := readUint(h.dir(path), file)
			if err != nil {
				return err
			}
			*field = n
		}
	}
	h := t.find("cpu")
	if h == nil && t.pure {
		h = t.v2 // cpu.stat is there even when the controller is not enabled
	}
	if h == nil {
		return nil
	}
	text, err := readFile(h.dir(path), "cpu.stat")
	if err != nil {
		return err
	}
	keyed(text, func(key string, n uint64) {
		switch key {
		case "usage_usec":
			cpu.UsageNS = n * 1000
		case "user_usec":
			cpu.UserNS = n * 1000
		case "system_usec":
			cpu.SystemNS = n * 1000
		case "nr_periods":
			cpu.Periods = n
		case "nr_throttled":
			cpu.Throttled = n
		case "throttled_usec":
			cpu.ThrottledNS = n * 1000
		case "throttled_time": // v1, in nanoseconds
			cpu.ThrottledNS = n
		}
	})
	stats.CPU = &cpu
	return nil
}

func (t *Tree) pidsStats(path string, stats *Stats) error {
	h := t.find("pids")
	if h == nil {
		return nil
	}
	current, err := readUint(h.dir(path), "pids.current")
	if err != nil {
		return err
	}
	limit, err := readUint(h.dir(path), "pids.max")
	if err != nil {
		return err
	}
	stats.Pids = &PidsStats{Current: current, Limit: limit}
	return nil
}

// pressure reads the PSI files of a pure v2 machine: on a hybrid one they count
// only the tasks that were cloned into the v2 cgroup, and would look like calm.
func (t *Tree) pressure(path string, stats *Stats) {
	if !t.pure {
		return
	}
	for _, resource := range []string{"cpu", "memory", "io"} {
		text, err := readFile(t.v2.dir(path), resource+".pressure")
		if err != nil {
			continue // psi=0, or CONFIG_PSI is not set
		}
		if stats.PSI == nil {
			stats.PSI = map[string]PSI{}
		}
		stats.PSI[resource] = parsePSI(text)
	}
}

// parsePSI reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and "full …".
func parsePSI(text string) PSI {
	var psi PSI
	for line := range strings.SplitSeq(text, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		target := &psi.Some
		if kind == "full" {
			target = &psi.Full
		}
		for field := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(field, "=")
			n, _ := strconv.ParseFloat(value, 64)
			switch key {
			case "avg10":
				target.Avg10 = n
			case "avg60":
				target.Avg60 = n
			case "avg300":
				target.Avg300 = n
			case "total":
				target.TotalUS, _ = strconv.ParseUint(value, 10, 64)
			}
		}
	}
	return psi
}
