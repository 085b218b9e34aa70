package sandbox

import (
	"path/filepath"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/unit"
)

// PodStats tells what a pod uses. One that is not ready has attributes only.
func (m *Manager) PodStats(id string) (*criapi.PodSandboxStats, error) {
	p, err := m.pod(id)
	if err != nil {
		return nil, err
	}
	return m.podStatsOf([]*Pod{p})[0], nil
}

// ListPodStats is PodStats of all ready pods that a filter matches.
func (m *Manager) ListPodStats(f *criapi.PodSandboxStatsFilter) []*criapi.PodSandboxStats {
	var ready []*Pod
	for _, p := range m.allPods() {
		if hasPrefix(p.ID, f.GetId()) && selects(f.GetLabelSelector(), p.Config.GetLabels()) && p.look().ready {
			ready = append(ready, p)
		}
	}
	return m.podStatsOf(ready)
}

// podLook is what stats need of a pod.
type podLook struct {
	ready      bool
	network    bool // of its own
	cgroup     string
	containers []*Container // that run
}

func (p *Pod) look() podLook {
	p.mu.Lock()
	defer p.mu.Unlock()
	return podLook{ready: p.state == podReady, network: p.att != nil, cgroup: p.sumCgroup(), containers: p.running()}
}

// sumCgroup is the one that holds all of a pod: its own, or the kubelet's that its containers are in. "" is none.
func (p *Pod) sumCgroup() string {
	if p.spec == nil {
		return ""
	}
	own := p.spec.Linux.CgroupsPath
	if p.Config.GetLinux().GetCgroupParent() == "" {
		return own
	}
	if unit.Is(own) {
		u, _ := unit.Parse(own) // "" is none
		return u.Slice
	}
	return filepath.Dir(own)
}

// podUse is one look at what pods use, gathered for all at once.
type podUse struct {
	look     podLook
	stats    cgroup.Stats
	measured bool // there are stats
	procs    int
	at       time.Time // of the counters
	network  []netns.Counters
}

// usesOf looks at pods, in their order. A cgroup that several pods have been given counts for none of them: the sum
// of a pod's containers stands for it.
func (m *Manager) usesOf(pods []*Pod, read func(string) (cgroup.Stats, error)) []podUse {
	shared := map[string]int{}
	for _, p := range m.allPods() {
		if look := p.look(); look.ready {
			shared[look.cgroup]++
		}
	}
	uses := make([]podUse, len(pods))
	for i, p := range pods {
		uses[i].look = p.look()
		if look := uses[i].look; !look.ready {
			continue
		} else if look.cgroup != "" && shared[look.cgroup] < 2 {
			uses[i].stats, uses[i].measured = m.look(look.cgroup, read)
			uses[i].procs = m.processes(look.cgroup)
			continue
		}
		for _, c := range uses[i].look.containers {
			path := c.snapshot().cgroup
			if st, ok := m.look(path, read); ok {
				uses[i].stats.Add(st)
				uses[i].measured = true
			}
			uses[i].procs += m.processes(path)
		}
	}
	m.readNetworks(pods, uses)
	return uses
}

func (m *Manager) processes(path string) int {
	pids, _ := m.cfg.Cgroups.Procs(path) // gone: none
	return len(pids)
}

func (m *Manager) readNetworks(pods []*Pod, uses []podUse) {
	var paths []string
	var index []int
	for i, p := range pods {
		if uses[i].look.ready && uses[i].look.network {
			paths, index = append(paths, m.netnsPath(p)), append(index, i)
		}
	}
	if len(paths) == 0 {
		return
	}
	counters, err := netns.ReadCounters(paths)
	if err != nil {
		m.log.Warn("read network stats", "err", err)
		return
	}
	for i, list := range counters {
		uses[index[i]].network, uses[index[i]].at = list, time.Now()
	}
}

func (m *Manager) netnsPath(p *Pod) string { return filepath.Join(m.cfg.RunDir, "netns", p.ID) }

func (m *Manager) podStatsOf(pods []*Pod) []*criapi.PodSandboxStats {
	uses := m.usesOf(pods, m.cfg.Cgroups.Usage)
	var ctrs []*Container
	for _, u := range uses {
		if u.look.ready {
			ctrs = append(ctrs, u.look.containers...)
		}
	}
	stats := m.statsOf(ctrs)
	out := make([]*criapi.PodSandboxStats, len(pods))
	for i, p := range pods {
		out[i] = &criapi.PodSandboxStats{
			Attributes: &criapi.PodSandboxAttributes{Id: p.ID, Metadata: p.Config.GetMetadata(), Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations()},
			Linux:      &criapi.LinuxPodSandboxStats{},
		}
		if !uses[i].look.ready {
			continue
		}
		n := len(uses[i].look.containers)
		uses[i].fill(out[i].Linux, &p.cpu)
		out[i].Linux.Containers, stats = stats[:n:n], stats[n:]
	}
	return out
}

func (u *podUse) fill(out *criapi.LinuxPodSandboxStats, rate *cpuRate) {
	out.Process = &criapi.ProcessUsage{Timestamp: time.Now().UnixNano(), ProcessCount: value(uint64(u.procs))}
	if u.measured {
		out.Cpu, out.Memory, out.Io = cpuUsage(u.stats, rate), memoryUsage(u.stats), ioUsage(u.stats)
	}
	if u.network == nil {
		return
	}
	out.Network = &criapi.NetworkUsage{Timestamp: u.at.UnixNano()}
	for _, c := range u.network {
		usage := &criapi.NetworkInterfaceUsage{Name: c.Name, RxBytes: value(c.RxBytes), RxErrors: value(c.RxErrors), TxBytes: value(c.TxBytes), TxErrors: value(c.TxErrors)}
		if c.Name == netns.IfName {
			out.Network.DefaultInterface = usage
		} else {
			out.Network.Interfaces = append(out.Network.Interfaces, usage)
		}
	}
}
