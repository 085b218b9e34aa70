package sandbox

import (
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"syscall"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

// usage is what is remembered between two looks at a container.
type usage struct {
	cpuAt    time.Time
	cpuNS    uint64
	layerAt  time.Time
	bytes    uint64
	inodes   uint64
	nanoCPUs uint64
}

// layerEvery is how often a writable layer is measured at the most: it is walked file by file.
const layerEvery = 10 * time.Second

// ContainerStats tells what a container uses. One that does not run has attributes and its layer only.
func (m *Manager) ContainerStats(id string) (*criapi.ContainerStats, error) {
	c, err := m.container(id)
	if err != nil {
		return nil, err
	}
	return m.stats(c), nil
}

// ListContainerStats is ContainerStats of all containers that run and that a filter matches.
func (m *Manager) ListContainerStats(f *criapi.ContainerStatsFilter) []*criapi.ContainerStats {
	out := []*criapi.ContainerStats{}
	for _, c := range m.allContainers() {
		if !hasPrefix(c.ID, f.GetId()) || !hasPrefix(c.pod.ID, f.GetPodSandboxId()) || !selects(f.GetLabelSelector(), c.Config.GetLabels()) {
			continue
		}
		c.pod.mu.Lock()
		running := c.state == ctrRunning
		c.pod.mu.Unlock()
		if running {
			out = append(out, m.stats(c))
		}
	}
	return out
}

func (m *Manager) stats(c *Container) *criapi.ContainerStats {
	out := &criapi.ContainerStats{Attributes: &criapi.ContainerAttributes{Id: c.ID, Metadata: c.Config.GetMetadata(), Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations()}}
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	out.WritableLayer = m.layerUsage(c)
	if c.state != ctrRunning {
		return out
	}
	st, err := m.cfg.Cgroups.Stats(c.cgroup())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("read stats", "pod", c.pod.ID, "ctr", c.ID, "err", err)
		}
		return out
	}
	c.fillStats(out, st)
	return out
}

func (c *Container) fillStats(out *criapi.ContainerStats, st cgroup.Stats) {
	at := st.Time.UnixNano()
	if st.CPU != nil {
		out.Cpu = &criapi.CpuUsage{Timestamp: at, UsageCoreNanoSeconds: value(st.CPU.UsageNS), Psi: psi(st, "cpu")}
		if d := st.Time.Sub(c.usage.cpuAt); !c.usage.cpuAt.IsZero() && d > 0 && st.CPU.UsageNS >= c.usage.cpuNS {
			if d >= 100*time.Millisecond {
				c.usage.nanoCPUs = uint64(float64(st.CPU.UsageNS-c.usage.cpuNS) / d.Seconds())
			}
			out.Cpu.UsageNanoCores = value(c.usage.nanoCPUs)
		}
		if st.Time.Sub(c.usage.cpuAt) >= 100*time.Millisecond {
			c.usage.cpuAt, c.usage.cpuNS = st.Time, st.CPU.UsageNS
		}
	}
	if mem := st.Memory; mem != nil {
		out.Memory = &criapi.MemoryUsage{
			Timestamp: at, WorkingSetBytes: value(mem.WorkingSet), UsageBytes: value(mem.Usage), RssBytes: value(mem.RSS), PageFaults: value(mem.PageFaults),
			MajorPageFaults: value(mem.MajorFaults), Psi: psi(st, "memory"), AvailableBytes: value(mem.Available),
		}
	}
	if st.Swap != nil {
		out.Swap = &criapi.SwapUsage{Timestamp: at, SwapUsageBytes: value(st.Swap.Usage)}
		if st.Swap.Limit != math.MaxUint64 && st.Swap.Limit >= st.Swap.Usage {
			out.Swap.SwapAvailableBytes = value(st.Swap.Limit - st.Swap.Usage)
		}
	}
	if p := psi(st, "io"); p != nil {
		out.Io = &criapi.IoUsage{Timestamp: at, Psi: p}
	}
}

func value(v uint64) *criapi.UInt64Value { return &criapi.UInt64Value{Value: v} }

func psi(st cgroup.Stats, resource string) *criapi.PsiStats {
	p, ok := st.PSI[resource]
	if !ok {
		return nil
	}
	line := func(l cgroup.PSILine) *criapi.PsiData {
		return &criapi.PsiData{Total: l.TotalUS, Avg10: l.Avg10, Avg60: l.Avg60, Avg300: l.Avg300}
	}
	return &criapi.PsiStats{Full: line(p.Full), Some: line(p.Some)}
}

// layerUsage measures the writable layer, not more often than layerEvery. Caller holds the pod's mutex.
func (m *Manager) layerUsage(c *Container) *criapi.FilesystemUsage {
	path := m.writableLayerPath(c)
	if path == "" {
		return nil
	}
	if time.Since(c.usage.layerAt) > layerEvery {
		c.usage.bytes, c.usage.inodes = measure(path)
		c.usage.layerAt = time.Now()
	}
	return &criapi.FilesystemUsage{
		Timestamp: c.usage.layerAt.UnixNano(), FsId: &criapi.FilesystemIdentifier{Mountpoint: m.cfg.StateDir}, UsedBytes: value(c.usage.bytes), InodesUsed: value(c.usage.inodes),
	}
}

func measure(root string) (bytes, inodes uint64) {
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // files come and go under a running container
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			if st.Nlink > 1 && !d.IsDir() {
				seen[st.Ino] = true
			}
			bytes += uint64(st.Blocks) * 512
			inodes++
		}
		return nil
	})
	return bytes, inodes
}
