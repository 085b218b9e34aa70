package cgroup

import (
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Read returns the limits that are in force, in the terms of config.json. What
// is not limited is left out, but for the CPU quota, which is then -1. Weights of
// v2 are turned back into the lowest shares that give them.
func (t *Tree) Read(path string) (*specs.LinuxResources, error) {
	path, err := locate(path)
	if err != nil {
		return nil, err
	}
	if !exists(t.main().dir(path)) {
		return nil, &fs.PathError{Op: "read limits of", Path: path, Err: fs.ErrNotExist}
	}
	r := &specs.LinuxResources{}
	for _, read := range []func(string, *specs.LinuxResources) error{t.readCPU, t.readCpuset, t.readMemory, t.readPids, t.readHugepages} {
		if err := ignoreAbsent(read(path, r)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (t *Tree) readCPU(path string, r *specs.LinuxResources) error {
	h := t.find("cpu")
	if h == nil {
		return nil
	}
	dir := h.dir(path)
	r.CPU = &specs.LinuxCPU{}
	if h.v2 {
		weight, err := readUint(dir, "cpu.weight")
		if err != nil {
			return err
		}
		r.CPU.Shares = new(sharesOf(weight))
		text, err := readFile(dir, "cpu.max")
		if err != nil {
			return err
		}
		quota, period, _ := strings.Cut(text, " ")
		return setQuota(r.CPU, quota, period)
	}
	shares, err := readUint(dir, "cpu.shares")
	if err != nil {
		return err
	}
	r.CPU.Shares = &shares
	period, err := readFile(dir, "cpu.cfs_period_us")
	if err != nil {
		return err // CONFIG_CFS_BANDWIDTH is not set
	}
	quota, err := readFile(dir, "cpu.cfs_quota_us")
	if err != nil {
		return err
	}
	return setQuota(r.CPU, quota, period)
}

func setQuota(cpu *specs.LinuxCPU, quota, period string) error {
	n, err := strconv.ParseUint(period, 10, 64)
	if err != nil {
		return err
	}
	q := int64(-1)
	if quota != "max" {
		if q, err = strconv.ParseInt(quota, 10, 64); err != nil {
			return err
		}
	}
	cpu.Quota, cpu.Period = &q, &n
	return nil
}

// sharesOf finds the lowest shares that v2 would turn into weight.
func sharesOf(weight uint64) uint64 {
	low, high := uint64(2), uint64(262144)
	for low < high {
		if middle := (low + high) / 2; cgroups.ConvertCPUSharesToCgroupV2Value(middle) < weight {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

func (t *Tree) readCpuset(path string, r *specs.LinuxResources) error {
	h := t.find("cpuset")
	if h == nil {
		return nil
	}
	cpus, err := readFile(h.dir(path), "cpuset.cpus")
	if err != nil {
		return err
	}
	mems, err := readFile(h.dir(path), "cpuset.mems")
	if err != nil {
		return err
	}
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	r.CPU.Cpus, r.CPU.Mems = cpus, mems
	return nil
}

func (t *Tree) readMemory(path string, r *specs.LinuxResources) error {
	h := t.find("memory")
	if h == nil {
		return nil
	}
	files := memoryFilesOf(h)
	limit, err := readUint(h.dir(path), files.limit)
	if err != nil {
		return err
	}
	r.Memory = &specs.LinuxMemory{Limit: limited(limit)}
	swap, err := readUint(h.dir(path), files.swapLimit)
	if err != nil {
		return err
	}
	if h.v2 && swap != math.MaxUint64 {
		if unlimited(limit) {
			return nil // a limit on swap alone cannot be said in config.json
		}
		swap += limit
	}
	r.Memory.Swap = limited(swap)
	return nil
}

// limited returns nil for no limit.
func limited(n uint64) *int64 {
	if unlimited(n) {
		return nil
	}
	return new(int64(n))
}

func (t *Tree) readPids(path string, r *specs.LinuxResources) error {
	h := t.find("pids")
	if h == nil {
		return nil
	}
	n, err := readUint(h.dir(path), "pids.max")
	if err != nil {
		return err
	}
	if limit := limited(n); limit != nil {
		r.Pids = &specs.LinuxPids{Limit: limit}
	}
	return nil
}

func (t *Tree) readHugepages(path string, r *specs.LinuxResources) error {
	h := t.find("hugetlb")
	if h == nil {
		return nil
	}
	suffix := ".limit_in_bytes"
	if h.v2 {
		suffix = ".max"
	}
	entries, err := listFiles(h.dir(path), "hugetlb.")
	if err != nil {
		return err
	}
	for _, file := range entries {
		size, ok := strings.CutSuffix(strings.TrimPrefix(file, "hugetlb."), suffix)
		if !ok || strings.Contains(size, ".") {
			continue
		}
		n, err := readUint(h.dir(path), file)
		if err != nil {
			return err
		}
		if limit := limited(n); limit != nil {
			r.HugepageLimits = append(r.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: n})
		}
	}
	slices.SortFunc(r.HugepageLimits, func(a, b specs.LinuxHugepageLimit) int { return strings.Compare(a.Pagesize, b.Pagesize) })
	return nil
}
