package oci

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

const resourcesField = "linux.resources"

// Resources turns CRI's limits into the runtime-spec's; UpdateContainerResources
// uses it too. A zero is "not specified". The result is nil when nothing is.
func Resources(r *criapi.LinuxContainerResources, facts host.Facts) (*specs.LinuxResources, error) {
	return resources(limits{r, facts, containerConfig, resourcesField})
}

// limits is a set of limits and where it stands, for the errors.
type limits struct {
	r             *criapi.LinuxContainerResources
	facts         host.Facts
	config, field string
}

func (l limits) bad(field, why string) error {
	return &InvalidError{Config: l.config, Field: l.field + "." + field, Why: why}
}

func resources(l limits) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{}
	var err error
	if out.CPU, err = l.cpu(); err != nil {
		return nil, err
	}
	if out.Memory, err = l.memory(); err != nil {
		return nil, err
	}
	if out.HugepageLimits, err = l.hugepages(); err != nil {
		return nil, err
	}
	if out.Unified, err = l.unified(); err != nil {
		return nil, err
	}
	if out.CPU == nil && out.Memory == nil && out.HugepageLimits == nil && out.Unified == nil {
		return nil, nil
	}
	return out, nil
}

// cpu: period and quota are in microseconds, a quota of -1 lifts the limit,
// shares are cgroup v1's (1024 is one CPU's worth).
func (l limits) cpu() (*specs.LinuxCPU, error) {
	r := l.r
	switch {
	case r.GetCpuPeriod() < 0:
		return nil, l.bad("cpu_period", "is negative")
	case r.GetCpuQuota() < -1:
		return nil, l.bad("cpu_quota", "is below -1, which means no limit")
	case r.GetCpuShares() < 0:
		return nil, l.bad("cpu_shares", "is negative")
	case !isCPUList(r.GetCpusetCpus()):
		return nil, l.bad("cpuset_cpus", quote(r.GetCpusetCpus())+` is not a list like "0-2,5"`)
	case !isCPUList(r.GetCpusetMems()):
		return nil, l.bad("cpuset_mems", quote(r.GetCpusetMems())+` is not a list like "0-2,5"`)
	}
	c := specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if v := uint64(r.GetCpuPeriod()); v != 0 {
		c.Period = &v
	}
	if v := r.GetCpuQuota(); v != 0 {
		c.Quota = &v
	}
	if v := uint64(r.GetCpuShares()); v != 0 {
		c.Shares = &v
	}
	if c == (specs.LinuxCPU{}) {
		return nil, nil
	}
	return &c, nil
}

// memory: a limit without one for swap allows no swap, or a container could
// double what it was given. Swap counts memory in, as in cgroup v1. Where the
// kernel does not account for swap, there is nothing to be set.
func (l limits) memory() (*specs.LinuxMemory, error) {
	limit, swap := l.r.GetMemoryLimitInBytes(), l.r.GetMemorySwapLimitInBytes()
	switch {
	case limit < -1:
		return nil, l.bad("memory_limit_in_bytes", "is below -1, which means no limit")
	case swap < -1:
		return nil, l.bad("memory_swap_limit_in_bytes", "is below -1, which means no limit")
	case swap > 0 && limit > swap:
		return nil, l.bad("memory_swap_limit_in_bytes", "is less than memory_limit_in_bytes, which it includes")
	}
	if swap == 0 && limit != 0 {
		swap = limit
	}
	var m specs.LinuxMemory
	if limit != 0 {
		m.Limit = &limit
	}
	if swap != 0 && l.facts.SwapAccounting {
		m.Swap = &swap
	}
	if m == (specs.LinuxMemory{}) {
		return nil, nil
	}
	return &m, nil
}

// hugepages: the kubelet sends a limit of 0 for every size of the node with
// every container; one that the node cannot enforce is refused only when it
// grants something.
func (l limits) hugepages() ([]specs.LinuxHugepageLimit, error) {
	var list []specs.LinuxHugepageLimit
	for i, h := range l.r.GetHugepageLimits() {
		field := indexed("hugepage_limits", i)
		has := slices.Contains(l.facts.HugepageSizes, h.GetPageSize())
		switch {
		case h.GetPageSize() == "" || strings.ContainsAny(h.GetPageSize(), "./\x00\n "):
			return nil, l.bad(field+".page_size", quote(h.GetPageSize())+` is not a size like "2MB"`)
		case !has && h.GetLimit() > 0:
			return nil, l.bad(field+".page_size", "this kernel has no huge pages of "+h.GetPageSize())
		case !l.hasController("hugetlb") && h.GetLimit() > 0:
			return nil, l.bad(field+".limit", "this node has no hugetlb cgroup controller")
		case has && l.hasController("hugetlb"):
			list = append(list, specs.LinuxHugepageLimit{Pagesize: h.GetPageSize(), Limit: h.GetLimit()})
		}
	}
	return list, nil
}

// unified passes cgroup v2 files through, those of controllers that this node
// has on its v2 hierarchy. "cgroup.*" is the runtime's own (freezing, killing).
func (l limits) unified() (map[string]string, error) {
	for _, key := range slices.Sorted(maps.Keys(l.r.GetUnified())) {
		field := "unified[" + quote(key) + "]"
		controller, file, ok := strings.Cut(key, ".")
		switch {
		case !ok || controller == "" || file == "" || strings.ContainsAny(key, "/\x00\n "):
			return nil, l.bad(field, `is not the name of a cgroup v2 file, like "memory.high"`)
		case controller == "cgroup":
			return nil, l.bad(field, "belongs to the runtime")
		case !slices.Contains(l.facts.Cgroup.UnifiedControllers, controller):
			return nil, l.bad(field, "this node has no cgroup v2 controller "+controller)
		case strings.ContainsRune(l.r.GetUnified()[key], 0):
			return nil, l.bad(field, "the value contains a NUL byte")
		}
	}
	return maps.Clone(l.r.GetUnified()), nil
}

func (l limits) hasController(name string) bool {
	return l.facts.Cgroup.Mounts[name] != "" || slices.Contains(l.facts.Cgroup.UnifiedControllers, name)
}

// isCPUList checks the list format of cpuset(7); empty is one.
func isCPUList(s string) bool {
	if s == "" {
		return true
	}
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		if !isNumber(lo) || ranged && !isNumber(hi) {
			return false
		}
	}
	return true
}

func isNumber(s string) bool {
	return s != "" && len(s) <= 6 && strings.Trim(s, "0123456789") == ""
}
