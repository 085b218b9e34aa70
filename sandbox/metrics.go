package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

// metric is one that we give. Names, units and labels are cAdvisor's, which the kubelet's /metrics/cadvisor has had
// for years. CRI's values are whole numbers, so seconds are cut.
type metric struct {
	name, help string
	kind       criapi.MetricType
	labels     []string // beside baseLabels
	values     func(*sample) []reading
}

// reading is a value with those of the metric's own labels.
type reading struct {
	value  uint64
	labels []string
}

// baseLabels lead those of every metric: id is the cgroup, name the container's or the pod's id, container is empty
// for what counts for the pod as a whole.
var baseLabels = []string{"id", "name", "image", "container", "namespace", "pod"}

// sample is one look at a container or a pod. What was not looked at is nil, and its metrics are left out.
type sample struct {
	base    []string
	now     time.Time
	started time.Time
	stats   cgroup.Stats
	details *cgroup.Details
	procs   *processStats
	limits  *criapi.LinuxContainerResources
	layer   layerUse
	fs      *unix.Statfs_t
	network []netns.Counters
}

// MetricDescriptors describe what ListPodMetrics gives.
func (m *Manager) MetricDescriptors() []*criapi.MetricDescriptor {
	list := make([]*criapi.MetricDescriptor, len(metrics))
	for i, d := range metrics {
		list[i] = &criapi.MetricDescriptor{Name: d.name, Help: d.help, LabelKeys: append(baseLabels[:len(baseLabels):len(baseLabels)], d.labels...)}
	}
	return list
}

// ListPodMetrics gives the metrics of the ready pods and of their containers that run.
func (m *Manager) ListPodMetrics() []*criapi.PodSandboxMetrics {
	var pods []*Pod
	for _, p := range m.allPods() {
		if p.look().ready {
			pods = append(pods, p)
		}
	}
	var fs *unix.Statfs_t
	if st := (unix.Statfs_t{}); unix.Statfs(m.cfg.StateDir, &st) == nil {
		fs = &st
	}
	out := []*criapi.PodSandboxMetrics{}
	for i, use := range m.usesOf(pods, m.cfg.Cgroups.Stats) {
		if !use.look.ready {
			continue // it was stopped meanwhile
		}
		p := pods[i]
		one := &criapi.PodSandboxMetrics{PodSandboxId: p.ID, Metrics: m.podSample(p, use).metrics(), ContainerMetrics: []*criapi.ContainerMetrics{}}
		for _, s := range m.containerSamples(use.look.containers, fs) {
			one.ContainerMetrics = append(one.ContainerMetrics, &criapi.ContainerMetrics{ContainerId: s.base[1], Metrics: s.metrics()})
		}
		out = append(out, one)
	}
	return out
}

func (m *Manager) podSample(p *Pod, use podUse) *sample {
	md := p.Config.GetMetadata()
	s := &sample{
		base: []string{use.look.cgroup, p.ID, "", "", md.GetNamespace(), md.GetName()}, now: time.Now(), started: p.Created, network: use.network,
	}
	if use.measured {
		s.stats = use.stats
	}
	return s
}

func (m *Manager) containerSamples(ctrs []*Container, fs *unix.Statfs_t) []*sample {
	looks := make([]snapshot, len(ctrs))
	for i, c := range ctrs {
		looks[i] = c.snapshot()
	}
	uses := m.layersOf(ctrs, looks)
	var out []*sample
	for i, c := range ctrs {
		st, ok := m.look(looks[i].cgroup, m.cfg.Cgroups.Stats)
		if !ok {
			continue
		}
		details, pod := m.cfg.Cgroups.Details(looks[i].cgroup), c.pod.Config.GetMetadata()
		pids, _ := m.cfg.Cgroups.Procs(looks[i].cgroup)
		init, _ := m.cfg.Engine.PID(c.ID)
		image := c.Config.GetImage().GetUserSpecifiedImage()
		if image == "" {
			image = c.Config.GetImage().GetImage()
		}
		out = append(out, &sample{
			base: []string{looks[i].cgroup, c.ID, image, c.Config.GetMetadata().GetName(), pod.GetNamespace(), pod.GetName()}, now: st.Time, started: looks[i].started,
			stats: st, details: &details, procs: readProcesses(pids, init), limits: looks[i].limits, layer: uses[i], fs: fs,
		})
	}
	return out
}

// metrics gives every value that the sample has.
func (s *sample) metrics() []*criapi.Metric {
	list := make([]*criapi.Metric, 0, len(metrics))
	for i := range metrics {
		d := &metrics[i]
		for _, r := range d.values(s) {
			one := &criapi.Metric{Name: d.name, MetricType: d.kind, LabelValues: s.base, Value: value(r.value)}
			if len(r.labels) > 0 {
				one.LabelValues = append(s.base[:len(s.base):len(s.base)], r.labels...)
			}
			list = append(list, one)
		}
	}
	return list
}

// processStats are read from /proc, process by process.
type processStats struct {
	processes, files, sockets uint64
	nofile                    uint64 // soft limit of init, 0 when it could not be read
}

// readProcesses counts what processes have open. Those that end meanwhile count for nothing.
func readProcesses(pids []int, init int) *processStats {
	s := &processStats{processes: uint64(len(pids))}
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		d, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := d.Readdirnames(-1)
		_ = d.Close()
		s.files += uint64(len(names))
		for _, name := range names {
			if target, err := os.Readlink(dir + "/" + name); err == nil && strings.HasPrefix(target, "socket:") {
				s.sockets++
			}
		}
	}
	var limit unix.Rlimit
	if init > 0 && unix.Prlimit(init, unix.RLIMIT_NOFILE, nil, &limit) == nil {
		s.nofile = limit.Cur
	}
	return s
}

// deviceName is a block device's, from its numbers: "/dev/sda" for "8:0".
func deviceName(numbers string) string {
	target, err := os.Readlink("/sys/dev/block/" + numbers)
	if err != nil {
		return numbers
	}
	return "/dev/" + filepath.Base(target)
}
