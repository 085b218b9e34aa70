package cgroup

import (
	"strconv"
	"strings"
)

// CPUDetails is what v1 tells about CPUs beside CPUStats; on v2 there is nothing of it.
type CPUDetails struct {
	// PerCPU is the time on each CPU, PerCPUUser and PerCPUKernel the parts of it. Nanoseconds.
	PerCPU, PerCPUUser, PerCPUKernel []uint64
	// CPUs and Mems are where tasks may run and allocate.
	CPUs, Mems []uint16
	// Set has the other files of the cpuset by their names without "cpuset.", such as "mem_hardwall".
	Set map[string]int64
}

// cpusetFlags are the files of a v1 cpuset that hold one number (cpuset(7)).
var cpusetFlags = []string{
	"cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab", "memory_pressure",
	"sched_load_balance", "sched_relax_domain_level",
}

// CPUDetails reads them; what is absent is zero.
func (t *Tree) CPUDetails(path string) CPUDetails {
	d := CPUDetails{Set: map[string]int64{}}
	path, err := locate(path)
	if err != nil {
		return d
	}
	if h := t.find("cpuacct"); h != nil && !h.v2 {
		text, _ := readFile(h.dir(path), "cpuacct.usage_percpu")
		for _, field := range strings.Fields(text) {
			n, _ := strconv.ParseUint(field, 10, 64)
			d.PerCPU = append(d.PerCPU, n)
		}
		text, _ = readFile(h.dir(path), "cpuacct.usage_all")
		d.PerCPUUser, d.PerCPUKernel = parseUsageAll(text)
	}
	if h := t.find("cpuset"); h != nil && !h.v2 {
		dir := h.dir(path)
		cpus, _ := readFile(dir, "cpuset.cpus")
		mems, _ := readFile(dir, "cpuset.mems")
		d.CPUs, d.Mems = parseRanges(cpus), parseRanges(mems)
		for _, name := range cpusetFlags {
			text, _ := readFile(dir, "cpuset."+name)
			d.Set[name], _ = strconv.ParseInt(text, 10, 64)
		}
	}
	return d
}

// parseUsageAll reads "cpu user system" and a line for each CPU.
func parseUsageAll(text string) (user, kernel []uint64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] == "cpu" {
			continue
		}
		u, _ := strconv.ParseUint(f[1], 10, 64)
		k, _ := strconv.ParseUint(f[2], 10, 64)
		user, kernel = append(user, u), append(kernel, k)
	}
	return user, kernel
}

// parseRanges reads a list such as "0-2,5"; what is no list is left out.
func parseRanges(text string) []uint16 {
	var list []uint16
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for n := from; n <= to; n++ {
			list = append(list, uint16(n))
		}
	}
	return list
}

// KernelMemory is what the kernel uses for a cgroup, in all and for TCP, on v1, which counts it apart.
type KernelMemory struct{ All, TCP MemoryCounter }

// MemoryCounter is one of the counters of v1's memory controller, in bytes.
type MemoryCounter struct{ Limit, Usage, Peak, Failures uint64 }

// KernelMemory reads the counters; ok is false on v2.
func (t *Tree) KernelMemory(path string) (m KernelMemory, ok bool) {
	h := t.find("memory")
	path, err := locate(path)
	if h == nil || h.v2 || err != nil {
		return m, false
	}
	read := func(prefix string) (c MemoryCounter) {
		dir := h.dir(path)
		c.Limit, _ = readUint(dir, prefix+"limit_in_bytes")
		c.Usage, _ = readUint(dir, prefix+"usage_in_bytes")
		c.Peak, _ = readUint(dir, prefix+"max_usage_in_bytes")
		c.Failures, _ = readUint(dir, prefix+"failcnt")
		return c
	}
	return KernelMemory{read("memory.kmem."), read("memory.kmem.tcp.")}, true
}
