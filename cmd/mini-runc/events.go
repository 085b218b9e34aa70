package main

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/engine"
)

// events prints a line of JSON for each measurement and each OOM kill, in runc's form.
func events(ctx context.Context, a *app, args []string) error {
	fs := newFlags("events")
	interval := fs.Duration("interval", 5*time.Second, "time between two measurements")
	once := fs.Bool("stats", false, "measure once and return")
	rest, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	if *interval <= 0 {
		return errors.New("duration interval must be greater than 0")
	}
	id, e, out := rest[0], a.engine(), json.NewEncoder(a.out)
	measure := func() error {
		u, err := e.Usage(id)
		if err != nil {
			return err
		}
		return out.Encode(event{Type: "stats", ID: id, Data: newStats(u)})
	}
	if *once {
		return measure()
	}
	ctx = untilSignal(ctx)
	oom := func() error { return out.Encode(event{Type: "oom", ID: id}) }
	return e.Watch(ctx, id, *interval, oom, func() error {
		if err := measure(); !errors.Is(err, engine.ErrStatus) {
			return err
		}
		return nil // it has ended; Watch will see that
	})
}

// event is a line of `runc events`.
type event struct {
	Type string `json:"type"` // "stats" or "oom"
	ID   string `json:"id"`
	Data *stats `json:"data,omitempty"`
}

// stats has the names of runc's, for what the engine measures. Bytes and nanoseconds.
type stats struct {
	CPU     cpuStats            `json:"cpu"`
	CPUSet  cpusetStats         `json:"cpuset"`
	Memory  memoryStats         `json:"memory"`
	Pids    pidsStats           `json:"pids"`
	Blkio   blkioStats          `json:"blkio"`
	Hugetlb map[string]pageSize `json:"hugetlb"`
	// IntelRdt is empty: no container of ours has a group of its own in resctrl.
	IntelRdt struct{} `json:"intel_rdt"`
	// NetworkInterfaces is null, as in runc, which knows no network of a bundle either.
	NetworkInterfaces []struct{} `json:"network_interfaces"`
}

type cpuStats struct {
	Usage struct {
		Total        uint64   `json:"total,omitempty"`
		PerCPU       []uint64 `json:"percpu,omitempty"`
		PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
		PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
		Kernel       uint64   `json:"kernel"`
		User         uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods,omitempty"`
		ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling,omitzero"`
	PSI *psi `json:"psi,omitempty"`
}

// cpusetStats are of v1; on v2 all is zero, as in runc.
type cpusetStats struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          int64    `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           int64    `json:"mem_hardwall"`
	MemExclusive          int64    `json:"mem_exclusive"`
	MemoryMigrate         int64    `json:"memory_migrate"`
	MemorySpreadPage      int64    `json:"memory_spread_page"`
	MemorySpreadSlab      int64    `json:"memory_spread_slab"`
	MemoryPressure        int64    `json:"memory_pressure"`
	SchedLoadBalance      int64    `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

func newCPUSet(d cgroup.CPUDetails) cpusetStats {
	return cpusetStats{
		CPUs: d.CPUs, Mems: d.Mems, CPUExclusive: d.Set["cpu_exclusive"], MemHardwall: d.Set["mem_hardwall"], MemExclusive: d.Set["mem_exclusive"],
		MemoryMigrate: d.Set["memory_migrate"], MemorySpreadPage: d.Set["memory_spread_page"], MemorySpreadSlab: d.Set["memory_spread_slab"],
		MemoryPressure: d.Set["memory_pressure"], SchedLoadBalance: d.Set["sched_load_balance"], SchedRelaxDomainLevel: d.Set["sched_relax_domain_level"],
	}
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type memoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     memoryEntry       `json:"usage,omitzero"`
	Swap      memoryEntry       `json:"swap,omitzero"` // with memory, as runc counts it
	Kernel    memoryEntry       `json:"kernel,omitzero"`
	KernelTCP memoryEntry       `json:"kernelTCP,omitzero"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *psi              `json:"psi,omitempty"`
}

type pidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"` // absent: none
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type blkioStats struct {
	Bytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Ops   []blkioEntry `json:"ioServicedRecursive,omitempty"`
	PSI   *psi         `json:"psi,omitempty"`
}

type pageSize struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// psi is the pressure on one resource, in percent and microseconds.
type psi struct {
	Some psiLine `json:"some"`
	Full psiLine `json:"full"`
}

type psiLine struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

func newStats(u engine.Usage) *stats {
	s := &stats{Hugetlb: map[string]pageSize{}, CPUSet: newCPUSet(u.CPUDetails)}
	s.CPU.Usage.PerCPU, s.CPU.Usage.PerCPUUser, s.CPU.Usage.PerCPUKernel = u.PerCPU, u.PerCPUUser, u.PerCPUKernel
	if c := u.CPU; c != nil {
		s.CPU.Usage.Total, s.CPU.Usage.User, s.CPU.Usage.Kernel = c.UsageNS, c.UserNS, c.SystemNS
		s.CPU.Throttling.Periods, s.CPU.Throttling.ThrottledPeriods, s.CPU.Throttling.ThrottledTime = c.Periods, c.Throttled, c.ThrottledNS
	}
	s.Memory.Raw = u.Memory
	if m := u.Stats.Memory; m != nil {
		s.Memory.Cache = m.Cache
		s.Memory.Usage = memoryEntry{Limit: m.Limit, Usage: m.Usage, Max: u.MemoryPeak, Failcnt: u.MemoryFailures}
		if w := u.Swap; w != nil {
			s.Memory.Swap = memoryEntry{Limit: saturated(m.Limit, w.Limit), Usage: m.Usage + w.Usage}
		}
	}
	if k := u.Kernel; k != nil {
		s.Memory.Kernel = memoryEntry{k.All.Limit, k.All.Usage, k.All.Peak, k.All.Failures}
		s.Memory.KernelTCP = memoryEntry{k.TCP.Limit, k.TCP.Usage, k.TCP.Peak, k.TCP.Failures}
	}
	if p := u.Pids; p != nil {
		s.Pids.Current = p.Current
		if p.Limit+1 != 0 {
			s.Pids.Limit = p.Limit
		}
	}
	for _, h := range u.Hugepages {
		s.Hugetlb[h.Size] = pageSize{Usage: h.Usage, Max: h.Peak}
	}
	s.addDevices(u.Devices)
	s.CPU.PSI, s.Memory.PSI, s.Blkio.PSI = newPSI(u.PSI, "cpu"), newPSI(u.PSI, "memory"), newPSI(u.PSI, "io")
	return s
}

// saturated adds limits, of which the highest number is none.
func saturated(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return ^uint64(0)
}

func (s *stats) addDevices(devices []cgroup.DeviceIO) {
	for _, d := range devices {
		before, after, _ := strings.Cut(d.Device, ":")
		major, _ := strconv.ParseUint(before, 10, 64)
		minor, _ := strconv.ParseUint(after, 10, 64)
		s.Blkio.Bytes = append(s.Blkio.Bytes, blkioEntry{major, minor, "Read", d.ReadBytes}, blkioEntry{major, minor, "Write", d.WriteBytes})
		s.Blkio.Ops = append(s.Blkio.Ops, blkioEntry{major, minor, "Read", d.ReadOps}, blkioEntry{major, minor, "Write", d.WriteOps})
	}
}

func newPSI(all map[string]cgroup.PSI, resource string) *psi {
	p, ok := all[resource]
	if !ok {
		return nil
	}
	line := func(l cgroup.PSILine) psiLine { return psiLine{l.Avg10, l.Avg60, l.Avg300, l.TotalUS} }
	return &psi{line(p.Some), line(p.Full)}
}
