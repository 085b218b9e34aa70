package sandbox

import (
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"sync"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

// ContainerStats tells what a container uses. One that does not run has attributes and its layer only.
func (m *Manager) ContainerStats(id string) (*criapi.ContainerStats, error) {
	c, err := m.container(id)
	if err != nil {
		return nil, err
	}
	return m.statsOf([]*Container{c})[0], nil
}

// ListContainerStats is ContainerStats of all containers that run and that a filter matches.
func (m *Manager) ListContainerStats(f *criapi.ContainerStatsFilter) []*criapi.ContainerStats {
	var running []*Container
	for _, c := range m.allContainers() {
		if hasPrefix(c.ID, f.GetId()) && hasPrefix(c.pod.ID, f.GetPodSandboxId()) && selects(f.GetLabelSelector(), c.Config.GetLabels()) && c.snapshot().running {
			running = append(running, c)
		}
	}
	return m.statsOf(running)
}

// snapshot is what stats need of a container: its cgroup is read without the pod's mutex, which starts and stops take.
type snapshot struct {
	running           bool
	cgroup            string
	started, finished time.Time
	layered           bool                            // has a writable layer
	limits            *criapi.LinuxContainerResources // replaced, never written to
}

func (c *Container) snapshot() snapshot {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return snapshot{running: c.state == ctrRunning, cgroup: c.cgroup(), started: c.started, finished: c.finished, layered: c.pod.journal != nil, limits: c.Config.GetLinux().GetResources()}
}

// statsOf tells what containers use, in their order.
func (m *Manager) statsOf(ctrs []*Container) []*criapi.ContainerStats {
	looks := make([]snapshot, len(ctrs))
	for i, c := range ctrs {
		looks[i] = c.snapshot()
	}
	uses := m.layersOf(ctrs, looks)
	out := make([]*criapi.ContainerStats, len(ctrs))
	for i, c := range ctrs {
		out[i] = &criapi.ContainerStats{
			Attributes:    &criapi.ContainerAttributes{Id: c.ID, Metadata: c.Config.GetMetadata(), Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations()},
			WritableLayer: m.layerUsage(uses[i]),
		}
		if !looks[i].running {
			continue
		}
		if st, ok := m.look(looks[i].cgroup, m.cfg.Cgroups.Usage); ok {
			out[i].Cpu, out[i].Memory, out[i].Swap, out[i].Io = cpuUsage(st, &c.cpu), memoryUsage(st), swapUsage(st), ioUsage(st)
		}
	}
	return out
}

// look reads a cgroup that may go at any time, by Usage or Stats.
func (m *Manager) look(path string, read func(string) (cgroup.Stats, error)) (cgroup.Stats, bool) {
	if path == "" {
		return cgroup.Stats{}, false
	}
	st, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("read stats", "obj", path, "err", err)
	}
	return st, err == nil
}

// cpuRate remembers a look at the CPU time, for the rate between two.
type cpuRate struct {
	mu     sync.Mutex
	at     time.Time
	ns     uint64
	latest uint64 // nano cores
}

// rateOver is the least time that a rate is taken over; questions that come closer get the one before.
const rateOver = 100 * time.Millisecond

// nanoCores is nil until there is something to compare with.
func (r *cpuRate) nanoCores(at time.Time, ns uint64) *criapi.UInt64Value {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, passed := r.at.IsZero(), at.Sub(r.at)
	if !first && passed < rateOver {
		return value(r.latest)
	}
	if !first && ns >= r.ns {
		r.latest = uint64(float64(ns-r.ns) / passed.Seconds())
	}
	r.at, r.ns = at, ns
	if first {
		return nil
	}
	return value(r.latest)
}

func cpuUsage(st cgroup.Stats, rate *cpuRate) *criapi.CpuUsage {
	if st.CPU == nil {
		return nil
	}
	return &criapi.CpuUsage{
		Timestamp: st.Time.UnixNano(), UsageCoreNanoSeconds: value(st.CPU.UsageNS), UsageNanoCores: rate.nanoCores(st.Time, st.CPU.UsageNS), Psi: psi(st, "cpu"),
	}
}

func memoryUsage(st cgroup.Stats) *criapi.MemoryUsage {
	mem := st.Memory
	if mem == nil {
		return nil
	}
	return &criapi.MemoryUsage{
		Timestamp: st.Time.UnixNano(), WorkingSetBytes: value(mem.WorkingSet), UsageBytes: value(mem.Usage), RssBytes: value(mem.RSS), PageFaults: value(mem.PageFaults),
		MajorPageFaults: value(mem.MajorFaults), Psi: psi(st, "memory"), AvailableBytes: value(mem.Available),
	}
}

func swapUsage(st cgroup.Stats) *criapi.SwapUsage {
	if st.Swap == nil {
		return nil
	}
	out := &criapi.SwapUsage{Timestamp: st.Time.UnixNano(), SwapUsageBytes: value(st.Swap.Usage)}
	if st.Swap.Limit != math.MaxUint64 && st.Swap.Limit >= st.Swap.Usage {
		out.SwapAvailableBytes = value(st.Swap.Limit - st.Swap.Usage)
	}
	return out
}

func ioUsage(st cgroup.Stats) *criapi.IoUsage {
	p := psi(st, "io")
	if p == nil {
		return nil
	}
	return &criapi.IoUsage{Timestamp: st.Time.UnixNano(), Psi: p}
}

func value(v uint64) *criapi.UInt64Value { return &criapi.UInt64Value{Value: v} }

// psi is nil where the kernel does not tell. CRI counts nanoseconds, the kernel microseconds.
func psi(st cgroup.Stats, resource string) *criapi.PsiStats {
	p, ok := st.PSI[resource]
	if !ok {
		return nil
	}
	line := func(l cgroup.PSILine) *criapi.PsiData {
		return &criapi.PsiData{Total: l.TotalUS * 1000, Avg10: l.Avg10, Avg60: l.Avg60, Avg300: l.Avg300}
	}
	return &criapi.PsiStats{Full: line(p.Full), Some: line(p.Some)}
}

// upper is the directory with a container's changes.
func (m *Manager) upper(id string) string { return filepath.Join(m.layer(id), "upper") }

// layersOf tells what the containers' layers have; those that were never measured are waited for, layerWait for all.
func (m *Manager) layersOf(ctrs []*Container, looks []snapshot) []layerUse {
	uses := make([]layerUse, len(ctrs))
	limit := time.NewTimer(layerWait)
	defer limit.Stop()
	waits := map[int]<-chan struct{}{}
	for i, c := range ctrs {
		if looks[i].layered {
			var done <-chan struct{}
			if uses[i], done = m.layers.ask(m.upper(c.ID), looks[i].finished); done != nil {
				waits[i] = done
			}
		}
	}
	for i, done := range waits {
		select {
		case <-done:
			uses[i], _ = m.layers.ask(m.upper(ctrs[i].ID), looks[i].finished)
		case <-limit.C:
			return uses
		}
	}
	return uses
}

// layerUsage is nil for what is not known yet.
func (m *Manager) layerUsage(use layerUse) *criapi.FilesystemUsage {
	if use.at.IsZero() {
		return nil
	}
	return &criapi.FilesystemUsage{
		Timestamp: use.at.UnixNano(), FsId: &criapi.FilesystemIdentifier{Mountpoint: m.cfg.StateDir}, UsedBytes: value(use.bytes), InodesUsed: value(use.inodes),
	}
}
