package sandbox

import (
	"math"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

const (
	counter = criapi.MetricType_COUNTER
	gauge   = criapi.MetricType_GAUGE
)

// Readings of the parts of a sample; none where it lacks the part.

func one(v uint64) []reading { return []reading{{value: v}} }

func ofCPU(get func(*cgroup.CPUStats) uint64) func(*sample) []reading {
	return func(s *sample) []reading {
		if s.stats.CPU == nil {
			return nil
		}
		return one(get(s.stats.CPU))
	}
}

func ofMemory(get func(*cgroup.MemoryStats) uint64) func(*sample) []reading {
	return func(s *sample) []reading {
		if s.stats.Memory == nil {
			return nil
		}
		return one(get(s.stats.Memory))
	}
}

func ofDetails(get func(*cgroup.Details) uint64) func(*sample) []reading {
	return func(s *sample) []reading {
		if s.details == nil {
			return nil
		}
		return one(get(s.details))
	}
}

func ofDevices(get func(*cgroup.DeviceIO) uint64) func(*sample) []reading {
	return func(s *sample) (list []reading) {
		if s.details == nil {
			return nil
		}
		for i := range s.details.Devices {
			d := &s.details.Devices[i]
			list = append(list, reading{get(d), []string{deviceName(d.Device)}})
		}
		return list
	}
}

// blkio has a value for each device and direction, as one metric.
func blkio(s *sample) (list []reading) {
	if s.details == nil {
		return nil
	}
	for _, d := range s.details.Devices {
		major, minor, _ := strings.Cut(d.Device, ":")
		name := deviceName(d.Device)
		list = append(list, reading{d.ReadBytes, []string{name, major, minor, "Read"}}, reading{d.WriteBytes, []string{name, major, minor, "Write"}})
	}
	return list
}

func ofHugepages(get func(*cgroup.HugepageStats) uint64) func(*sample) []reading {
	return func(s *sample) (list []reading) {
		if s.details == nil {
			return nil
		}
		for i := range s.details.Hugepages {
			list = append(list, reading{get(&s.details.Hugepages[i]), []string{s.details.Hugepages[i].Size}})
		}
		return list
	}
}

func ofNetwork(get func(*netns.Counters) uint64) func(*sample) []reading {
	return func(s *sample) (list []reading) {
		for i := range s.network {
			list = append(list, reading{get(&s.network[i]), []string{s.network[i].Name}})
		}
		return list
	}
}

func ofProcesses(get func(*processStats) uint64) func(*sample) []reading {
	return func(s *sample) []reading {
		if s.procs == nil {
			return nil
		}
		return one(get(s.procs))
	}
}

// ofTasks leaves out "no limit", which cAdvisor writes as 0.
func ofTasks(get func(*cgroup.PidsStats) uint64) func(*sample) []reading {
	return func(s *sample) []reading {
		if s.stats.Pids == nil || s.procs == nil {
			return nil
		}
		if v := get(s.stats.Pids); v != math.MaxUint64 {
			return one(v)
		}
		return one(0)
	}
}

// ofLimits gives what was asked for; nothing for what was not.
func ofLimits(get func(*criapi.LinuxContainerResources) int64) func(*sample) []reading {
	return func(s *sample) []reading {
		if v := get(s.limits); v > 0 {
			return one(uint64(v))
		}
		return nil
	}
}

func ofFS(get func(*sample) uint64) func(*sample) []reading {
	return func(s *sample) []reading {
		if s.fs == nil {
			return nil
		}
		return one(get(s))
	}
}

func ofPressure(resource string, get func(cgroup.PSI) cgroup.PSILine) func(*sample) []reading {
	return func(s *sample) []reading {
		p, ok := s.stats.PSI[resource]
		if !ok {
			return nil
		}
		return one(get(p).TotalUS / 1e6)
	}
}

func some(p cgroup.PSI) cgroup.PSILine { return p.Some }
func full(p cgroup.PSI) cgroup.PSILine { return p.Full }

// failures are page faults: cAdvisor counts them as failures, of a kind and in a scope.
func failures(s *sample) []reading {
	m := s.stats.Memory
	if m == nil {
		return nil
	}
	return []reading{{m.PageFaults, []string{"pgfault", "hierarchy"}}, {m.MajorFaults, []string{"pgmajfault", "hierarchy"}}}
}

func swapped(s *sample) []reading {
	if s.stats.Swap == nil {
		return nil
	}
	return one(s.stats.Swap.Usage)
}

func layerBytes(s *sample) []reading {
	if s.layer.at.IsZero() {
		return nil
	}
	return one(s.layer.bytes)
}

func openFiles(s *sample) []reading {
	if s.procs == nil || s.procs.nofile == 0 {
		return nil
	}
	return []reading{{s.procs.nofile, []string{"max_open_files"}}}
}
