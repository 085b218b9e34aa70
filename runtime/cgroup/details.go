package cgroup

import (
	"strconv"
	"strings"
)

// Details is what a monitoring system asks for beside Stats. Parts that this
// machine does not measure are zero or nil; an absent cgroup has none.
type Details struct {
	// MemoryPeak is in bytes; MemoryFailures counts how often the limit was met.
	MemoryPeak, MemoryFailures, OOMKills uint64
	Devices                              []DeviceIO
	Hugepages                            []HugepageStats
}

// DeviceIO counts what went to one block device.
type DeviceIO struct {
	Device                                   string // "8:0"
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// HugepageStats is for one size of pages, "2MB", in bytes.
type HugepageStats struct {
	Size        string
	Usage, Peak uint64
}

// Details reads the counters.
func (t *Tree) Details(path string) Details {
	path, err := locate(path)
	if err != nil {
		return Details{}
	}
	d := Details{OOMKills: t.OOMKills(path), Devices: t.deviceIO(path), Hugepages: t.hugepageStats(path)}
	h := t.find("memory")
	if h == nil {
		return d
	}
	dir := h.dir(path)
	d.MemoryPeak, _ = readUint(dir, memoryFilesOf(h).peak) // v2 has it since Linux 5.19
	if h.v2 {
		text, _ := readFile(dir, "memory.events")
		d.MemoryFailures = lookup(text, "max")
	} else {
		d.MemoryFailures, _ = readUint(dir, "memory.failcnt")
	}
	return d
}

// MemoryCounters gives memory.stat as it is, by the kernel's words, which are others on v1 and on v2.
func (t *Tree) MemoryCounters(path string) map[string]uint64 {
	h := t.find("memory")
	path, err := locate(path)
	if h == nil || err != nil {
		return nil
	}
	text, _ := readFile(h.dir(path), "memory.stat")
	counters := map[string]uint64{}
	keyed(text, func(key string, n uint64) { counters[key] = n })
	return counters
}

// deviceIO reads io.stat of v2 or what blk-throttle counts on v1, which counts
// whatever the scheduler.
func (t *Tree) deviceIO(path string) []DeviceIO {
	if h := t.find("io"); h != nil && h.v2 {
		text, _ := readFile(h.dir(path), "io.stat")
		return parseIOStat(text)
	}
	h := t.find("blkio")
	if h == nil {
		return nil
	}
	bytes, _ := readFile(h.dir(path), "blkio.throttle.io_service_bytes_recursive")
	ops, _ := readFile(h.dir(path), "blkio.throttle.io_serviced_recursive")
	return parseBlkio(bytes, ops)
}

// parseIOStat reads lines such as "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
func parseIOStat(text string) []DeviceIO {
	var list []DeviceIO
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue // a device that was not used has its number alone
		}
		d := DeviceIO{Device: f[0]}
		for _, field := range f[1:] {
			key, value, _ := strings.Cut(field, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			switch key {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOps = n
			case "wios":
				d.WriteOps = n
			}
		}
		list = append(list, d)
	}
	return list
}

// parseBlkio reads lines such as "8:0 Read 4096", of bytes and of operations.
func parseBlkio(bytes, ops string) []DeviceIO {
	var list []DeviceIO
	index := map[string]int{}
	each := func(text string, set func(d *DeviceIO, kind string, n uint64)) {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue // the total
			}
			i, ok := index[f[0]]
			if !ok {
				i = len(list)
				index[f[0]], list = i, append(list, DeviceIO{Device: f[0]})
			}
			n, _ := strconv.ParseUint(f[2], 10, 64)
			set(&list[i], f[1], n)
		}
	}
	each(bytes, func(d *DeviceIO, kind string, n uint64) {
		switch kind {
		case "Read":
			d.ReadBytes = n
		case "Write":
			d.WriteBytes = n
		}
	})
	each(ops, func(d *DeviceIO, kind string, n uint64) {
		switch kind {
		case "Read":
			d.ReadOps = n
		case "Write":
			d.WriteOps = n
		}
	})
	return list
}

// hugepageStats reads the sizes that the controller has. v2 keeps no peak.
func (t *Tree) hugepageStats(path string) []HugepageStats {
	h := t.find("hugetlb")
	if h == nil {
		return nil
	}
	suffix := ".usage_in_bytes"
	if h.v2 {
		suffix = ".current"
	}
	dir := h.dir(path)
	files, _ := listFiles(dir, "hugetlb.")
	var list []HugepageStats
	for _, file := range files {
		size, ok := strings.CutSuffix(strings.TrimPrefix(file, "hugetlb."), suffix)
		if !ok || strings.Contains(size, ".") { // "2MB.rsvd"
			continue
		}
		s := HugepageStats{Size: size}
		s.Usage, _ = readUint(dir, file)
		if !h.v2 {
			s.Peak, _ = readUint(dir, "hugetlb."+size+".max_usage_in_bytes")
		}
		list = append(list, s)
	}
	return list
}
