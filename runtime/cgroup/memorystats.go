package cgroup

import "math"

// MemoryStats tells what is used, and of that what could not be given back.
type MemoryStats struct {
	Usage uint64
	// WorkingSet is usage without the inactive pages of files; kubelet evicts by it.
	WorkingSet              uint64
	RSS                     uint64
	PageFaults, MajorFaults uint64
	// Limit is math.MaxUint64 when there is none; Available is then 0.
	Limit, Available uint64
	// Cache is the pages of files, those of tmpfs too; the others are parts of the whole.
	Cache, MappedFile, ActiveFile, InactiveFile, ActiveAnon, InactiveAnon uint64
}

// SwapStats is swap alone, without memory. Limit is math.MaxUint64 for none.
type SwapStats struct{ Usage, Limit uint64 }

func (m *MemoryStats) add(o MemoryStats) {
	m.Usage, m.WorkingSet, m.RSS = m.Usage+o.Usage, m.WorkingSet+o.WorkingSet, m.RSS+o.RSS
	m.PageFaults, m.MajorFaults = m.PageFaults+o.PageFaults, m.MajorFaults+o.MajorFaults
	m.Limit, m.Available = math.MaxUint64, 0
	m.Cache, m.MappedFile = m.Cache+o.Cache, m.MappedFile+o.MappedFile
	m.ActiveFile, m.InactiveFile = m.ActiveFile+o.ActiveFile, m.InactiveFile+o.InactiveFile
	m.ActiveAnon, m.InactiveAnon = m.ActiveAnon+o.ActiveAnon, m.InactiveAnon+o.InactiveAnon
}

func (t *Tree) memoryStats(path string, stats *Stats) error {
	h := t.find("memory")
	if h == nil {
		return nil
	}
	files := memoryFilesOf(h)
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
	var swap uint64
	keyed(text, func(key string, n uint64) {
		if key == files.swapStat {
			swap = n
		} else if field := m.field(files, key); field != nil {
			*field = n
		}
	})
	m.WorkingSet = m.Usage - min(m.Usage, m.InactiveFile)
	if unlimited(m.Limit) {
		m.Limit = math.MaxUint64
	} else {
		m.Available = m.Limit - min(m.Limit, m.WorkingSet)
	}
	stats.Memory = &m
	stats.Swap = swapStats(dir, files, m.Limit, swap)
	return nil
}

// field is where a counter of memory.stat goes, nil for those that nobody asks for.
func (m *MemoryStats) field(files *memoryFiles, key string) *uint64 {
	switch key {
	case files.inactiveFile:
		return &m.InactiveFile
	case files.activeFile:
		return &m.ActiveFile
	case files.inactiveAnon:
		return &m.InactiveAnon
	case files.activeAnon:
		return &m.ActiveAnon
	case files.rss:
		return &m.RSS
	case files.cache:
		return &m.Cache
	case files.mappedFile:
		return &m.MappedFile
	case files.faults:
		return &m.PageFaults
	case files.majorFaults:
		return &m.MajorFaults
	}
	return nil
}

// memoryFiles are the names of one version's files and of its counters; those
// of v1 that begin with "total" have the cgroups below in them.
type memoryFiles struct {
	usage, limit, peak, swapUsage, swapLimit, swapStat string
	inactiveFile, activeFile, inactiveAnon, activeAnon string
	rss, cache, mappedFile, faults, majorFaults        string
	swapLimitHasMemory                                 bool
}

var memoryFilesV1 = memoryFiles{
	usage: "memory.usage_in_bytes", limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes",
	swapStat: "total_swap", swapLimit: "memory.memsw.limit_in_bytes", swapLimitHasMemory: true,
	inactiveFile: "total_inactive_file", activeFile: "total_active_file", inactiveAnon: "total_inactive_anon", activeAnon: "total_active_anon",
	rss: "total_rss", cache: "total_cache", mappedFile: "total_mapped_file", faults: "total_pgfault", majorFaults: "total_pgmajfault",
}

var memoryFilesV2 = memoryFiles{
	usage: "memory.current", limit: "memory.max", peak: "memory.peak",
	swapUsage: "memory.swap.current", swapLimit: "memory.swap.max",
	inactiveFile: "inactive_file", activeFile: "active_file", inactiveAnon: "inactive_anon", activeAnon: "active_anon",
	rss: "anon", cache: "file", mappedFile: "file_mapped", faults: "pgfault", majorFaults: "pgmajfault",
}

func memoryFilesOf(h *hierarchy) *memoryFiles {
	if h.v2 {
		return &memoryFilesV2
	}
	return &memoryFilesV1
}

// swapStats returns nil on a machine that does not account swap. On v1 usage is
// known from memory.stat, and the limit is one on the sum.
func swapStats(dir string, files *memoryFiles, memoryLimit, usage uint64) *SwapStats {
	limit, err := readUint(dir, files.swapLimit)
	if err == nil && files.swapUsage != "" {
		usage, err = readUint(dir, files.swapUsage)
	}
	if err != nil {
		return nil
	}
	if unlimited(limit) {
		limit = math.MaxUint64
	} else if files.swapLimitHasMemory {
		limit -= min(limit, memoryLimit)
	}
	return &SwapStats{Usage: usage, Limit: limit}
}
