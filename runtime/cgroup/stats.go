package cgroup

import (
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

// MemoryStats tells what is used, and of that what could not be given back.
type MemoryStats struct {
	Usage uint64
	// WorkingSet is usage without the inactive pages of files; kubelet evicts by it.
	WorkingSet              uint64
	RSS                     uint64
	PageFaults, MajorFaults uint64
	// Limit is math.MaxUint64 when there is none; Available is then 0.
	Limit, Available uint64
}

// SwapStats is swap alone, without memory. Limit is math.MaxUint64 for none.
type SwapStats struct{ Usage, Limit uint64 }

// PidsStats counts tasks. Limit is math.MaxUint64 for none.
type PidsStats struct{ Current, Limit uint64 }

// PSI is the pressure on one resource: how long some or all tasks waited.
type PSI struct{ Some, Full PSILine }

// PSILine holds percentages over 10, 60 and 300 seconds, and the sum in µs.
type PSILine struct {
	Avg10, Avg60, Avg300 float64
	TotalUS              uint64
}

// Stats reads the counters. An absent cgroup gives fs.ErrNotExist.
func (t *Tree) Stats(path string) (Stats, error) {
	if err := checkPath(path); err != nil {
		return Stats{}, err
	}
	stats := Stats{Time: time.Now()}
	for _, read := range []func(string, *Stats) error{t.cpuStats, t.memoryStats, t.pidsStats} {
		if err := read(path, &stats); err != nil {
			return Stats{}, err
		}
	}
	t.pressure(path, &stats)
	return stats, nil
}

func (t *Tree) cpuStats(path string, stats *Stats) error {
	var cpu CPUStats
	if h := t.find("cpuacct"); h != nil {
		for file, field := range map[string]*uint64{
			"cpuacct.usage": &cpu.UsageNS, "cpuacct.usage_user": &cpu.UserNS, "cpuacct.usage_sys": &cpu.SystemNS,
		} {
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

func (t *Tree) memoryStats(path string, stats *Stats) error {
	h := t.find("memory")
	if h == nil {
		return nil
	}
	files := memoryFilesV1
	if h.v2 {
		files = memoryFilesV2
	}
	dir := h.dir(path)
	var m MemoryStats
	var err error
	if m.Usage, err = readUint(dir, files.usage); err != nil {
		return err
	}
	if m.Limit, err = readUint(dir, files.limit); err != nil {
		return err
	}
	text, err := readFile(dir, "memory.stat")
	if err != nil {
		return err
	}
	var inactiveFile uint64
	keyed(text, func(key string, n uint64) {
		switch key {
		case files.inactiveFile:
			inactiveFile = n
		case files.rss:
			m.RSS = n
		case files.faults:
			m.PageFaults = n
		case files.majorFaults:
			m.MajorFaults = n
		}
	})
	m.WorkingSet = m.Usage - min(m.Usage, inactiveFile)
	if unlimited(m.Limit) {
		m.Limit = math.MaxUint64
	} else {
		m.Available = m.Limit - min(m.Limit, m.WorkingSet)
	}
	stats.Memory = &m
	stats.Swap = swapStats(dir, files, m)
	return nil
}

// memoryFiles are the names of one version's files and of its counters; those
// of v1 that begin with "total" have the cgroups below in them.
type memoryFiles struct {
	usage, limit, swapUsage, swapLimit                 string
	inactiveFile, activeFile, rss, faults, majorFaults string
	swapHasMemory                                      bool
}

var memoryFilesV1 = memoryFiles{
	usage: "memory.usage_in_bytes", limit: "memory.limit_in_bytes",
	swapUsage: "memory.memsw.usage_in_bytes", swapLimit: "memory.memsw.limit_in_bytes", swapHasMemory: true,
	inactiveFile: "total_inactive_file", activeFile: "total_active_file", rss: "total_rss", faults: "total_pgfault", majorFaults: "total_pgmajfault",
}

var memoryFilesV2 = memoryFiles{
	usage: "memory.current", limit: "memory.max",
	swapUsage: "memory.swap.current", swapLimit: "memory.swap.max",
	inactiveFile: "inactive_file", activeFile: "active_file", rss: "anon", faults: "pgfault", majorFaults: "pgmajfault",
}

// swapStats returns nil on a machine that does not account swap.
func swapStats(dir string, files memoryFiles, m MemoryStats) *SwapStats {
	usage, err1 := readUint(dir, files.swapUsage)
	limit, err2 := readUint(dir, files.swapLimit)
	if err1 != nil || err2 != nil {
		return nil
	}
	if unlimited(limit) {
		limit = math.MaxUint64
	}
	if files.swapHasMemory {
		usage -= min(usage, m.Usage)
		if limit != math.MaxUint64 {
			limit -= min(limit, m.Limit)
		}
	}
	return &SwapStats{Usage: usage, Limit: limit}
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

// OOMKills returns how many processes in the cgroup and below it the OOM killer
// has killed; 0 for one that is absent, so it must be read before Remove.
func (t *Tree) OOMKills(path string) uint64 {
	h := t.find("memory")
	if h == nil || checkPath(path) != nil {
		return 0
	}
	if h.v2 {
		text, _ := readFile(h.dir(path), "memory.events")
		return lookup(text, "oom_kill")
	}
	var kills uint64 // v1 counts for each cgroup alone
	_ = walk(h.dir(path), func(dir string) error {
		text, err := readFile(dir, "memory.oom_control")
		kills += lookup(text, "oom_kill")
		return err
	})
	return kills
}
