package sandbox

import (
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

// Labels of cAdvisor's beside those of every metric.
var (
	byCPU       = []string{"cpu"}
	byDevice    = []string{"device"}
	byOperation = []string{"device", "major", "minor", "operation"}
	bySize      = []string{"pagesize"}
	byFailure   = []string{"failure_type", "scope"}
	byInterface = []string{"interface"}
	byUlimit    = []string{"ulimit"}
)

// metrics is the list, in the order of its telling.
var metrics = []metric{
	{"container_cpu_usage_seconds_total", "CPU time consumed, in seconds.", counter, byCPU, func(s *sample) []reading {
		if s.stats.CPU == nil {
			return nil
		}
		return []reading{{s.stats.CPU.UsageNS / 1e9, []string{"total"}}}
	}},
	{"container_cpu_user_seconds_total", "CPU time consumed in user mode, in seconds.", counter, nil, ofCPU(func(c *cgroup.CPUStats) uint64 { return c.UserNS / 1e9 })},
	{"container_cpu_system_seconds_total", "CPU time consumed in the kernel, in seconds.", counter, nil, ofCPU(func(c *cgroup.CPUStats) uint64 { return c.SystemNS / 1e9 })},
	{"container_cpu_cfs_periods_total", "Periods that the CPU quota was counted in.", counter, nil, ofCPU(func(c *cgroup.CPUStats) uint64 { return c.Periods })},
	{"container_cpu_cfs_throttled_periods_total", "Periods whose CPU quota was used up.", counter, nil, ofCPU(func(c *cgroup.CPUStats) uint64 { return c.Throttled })},
	{"container_cpu_cfs_throttled_seconds_total", "Time spent waiting for CPU quota, in seconds.", counter, nil, ofCPU(func(c *cgroup.CPUStats) uint64 { return c.ThrottledNS / 1e9 })},

	{"container_memory_usage_bytes", "Memory in use, whenever it was touched last.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.Usage })},
	{"container_memory_working_set_bytes", "Memory in use without inactive pages of files.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.WorkingSet })},
	{"container_memory_rss", "Anonymous memory in bytes.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.RSS })},
	{"container_memory_cache", "Pages of files in bytes.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.Cache })},
	{"container_memory_mapped_file", "Mapped pages of files in bytes.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.MappedFile })},
	{"container_memory_total_active_file_bytes", "Active pages of files in bytes.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.ActiveFile })},
	{"container_memory_total_inactive_file_bytes", "Inactive pages of files in bytes.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.InactiveFile })},
	{"container_memory_active_anon_bytes", "Active anonymous memory in bytes.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.ActiveAnon })},
	{"container_memory_inactive_anon_bytes", "Inactive anonymous memory in bytes.", gauge, nil, ofMemory(func(m *cgroup.MemoryStats) uint64 { return m.InactiveAnon })},
	{"container_memory_swap", "Swap in use in bytes.", gauge, nil, swapped},
	{"container_memory_max_usage_bytes", "The most memory that was in use at a time.", gauge, nil, ofDetails(func(d *cgroup.Details) uint64 { return d.MemoryPeak })},
	{"container_memory_failcnt", "How often memory use has met its limit.", counter, nil, ofDetails(func(d *cgroup.Details) uint64 { return d.MemoryFailures })},
	{"container_memory_failures_total", "Page faults by kind.", counter, byFailure, failures},
	{"container_oom_events_total", "Processes that the kernel has killed for want of memory.", counter, nil, ofDetails(func(d *cgroup.Details) uint64 { return d.OOMKills })},

	{"container_hugetlb_usage_bytes", "Huge pages in use in bytes.", gauge, bySize, ofHugepages(func(h *cgroup.HugepageStats) uint64 { return h.Usage })},
	{"container_hugetlb_max_usage_bytes", "The most huge pages that were in use at a time, in bytes; 0 on cgroup v2, which does not count it.", gauge, bySize, ofHugepages(func(h *cgroup.HugepageStats) uint64 { return h.Peak })},

	{"container_fs_usage_bytes", "Size of the writable layer on disk.", gauge, nil, layerBytes},
	{"container_fs_limit_bytes", "Size of the file system of the writable layer.", gauge, nil, ofFS(func(s *sample) uint64 { return s.fs.Blocks * uint64(s.fs.Bsize) })},
	{"container_fs_inodes_total", "Inodes of the file system of the writable layer.", gauge, nil, ofFS(func(s *sample) uint64 { return s.fs.Files })},
	{"container_fs_inodes_free", "Free inodes of the file system of the writable layer.", gauge, nil, ofFS(func(s *sample) uint64 { return s.fs.Ffree })},
	{"container_fs_reads_bytes_total", "Bytes read from block devices.", counter, byDevice, ofDevices(func(d *cgroup.DeviceIO) uint64 { return d.ReadBytes })},
	{"container_fs_reads_total", "Reads from block devices.", counter, byDevice, ofDevices(func(d *cgroup.DeviceIO) uint64 { return d.ReadOps })},
	{"container_fs_writes_bytes_total", "Bytes written to block devices.", counter, byDevice, ofDevices(func(d *cgroup.DeviceIO) uint64 { return d.WriteBytes })},
	{"container_fs_writes_total", "Writes to block devices.", counter, byDevice, ofDevices(func(d *cgroup.DeviceIO) uint64 { return d.WriteOps })},
	{"container_blkio_device_usage_total", "Bytes read from and written to block devices.", counter, byOperation, blkio},

	{"container_network_receive_bytes_total", "Bytes received.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.RxBytes })},
	{"container_network_receive_packets_total", "Packets received.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.RxPackets })},
	{"container_network_receive_packets_dropped_total", "Packets dropped while receiving.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.RxDropped })},
	{"container_network_receive_errors_total", "Errors while receiving.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.RxErrors })},
	{"container_network_transmit_bytes_total", "Bytes sent.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.TxBytes })},
	{"container_network_transmit_packets_total", "Packets sent.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.TxPackets })},
	{"container_network_transmit_packets_dropped_total", "Packets dropped while sending.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.TxDropped })},
	{"container_network_transmit_errors_total", "Errors while sending.", counter, byInterface, ofNetwork(func(c *netns.Counters) uint64 { return c.TxErrors })},

	{"container_processes", "Processes.", gauge, nil, ofProcesses(func(p *processStats) uint64 { return p.processes })},
	{"container_file_descriptors", "Open file descriptors.", gauge, nil, ofProcesses(func(p *processStats) uint64 { return p.files })},
	{"container_sockets", "Open sockets.", gauge, nil, ofProcesses(func(p *processStats) uint64 { return p.sockets })},
	{"container_threads", "Threads.", gauge, nil, ofTasks(func(p *cgroup.PidsStats) uint64 { return p.Current })},
	{"container_threads_max", "The most threads that are allowed; 0 for no limit.", gauge, nil, ofTasks(func(p *cgroup.PidsStats) uint64 { return p.Limit })},
	{"container_ulimits_soft", "Soft limits of the container's first process.", gauge, byUlimit, openFiles},

	{"container_spec_cpu_period", "CPU period in microseconds.", gauge, nil, ofLimits((*criapi.LinuxContainerResources).GetCpuPeriod)},
	{"container_spec_cpu_quota", "CPU quota in microseconds.", gauge, nil, ofLimits((*criapi.LinuxContainerResources).GetCpuQuota)},
	{"container_spec_cpu_shares", "CPU shares.", gauge, nil, ofLimits((*criapi.LinuxContainerResources).GetCpuShares)},
	{"container_spec_memory_limit_bytes", "Limit of memory in bytes.", gauge, nil, ofLimits((*criapi.LinuxContainerResources).GetMemoryLimitInBytes)},
	{"container_spec_memory_swap_limit_bytes", "Limit of memory and swap in bytes.", gauge, nil, ofLimits((*criapi.LinuxContainerResources).GetMemorySwapLimitInBytes)},
	{"container_start_time_seconds", "When it was started, in seconds since 1970.", gauge, nil, func(s *sample) []reading { return one(uint64(s.started.Unix())) }},
	{"container_last_seen", "When it was looked at, in seconds since 1970.", gauge, nil, func(s *sample) []reading { return one(uint64(s.now.Unix())) }},

	{"container_pressure_cpu_waiting_seconds_total", "Time that some task waited for a CPU, in seconds.", counter, nil, ofPressure("cpu", some)},
	{"container_pressure_cpu_stalled_seconds_total", "Time that all tasks waited for a CPU, in seconds.", counter, nil, ofPressure("cpu", full)},
	{"container_pressure_memory_waiting_seconds_total", "Time that some task waited for memory, in seconds.", counter, nil, ofPressure("memory", some)},
	{"container_pressure_memory_stalled_seconds_total", "Time that all tasks waited for memory, in seconds.", counter, nil, ofPressure("memory", full)},
	{"container_pressure_io_waiting_seconds_total", "Time that some task waited for I/O, in seconds.", counter, nil, ofPressure("io", some)},
	{"container_pressure_io_stalled_seconds_total", "Time that all tasks waited for I/O, in seconds.", counter, nil, ofPressure("io", full)},
}
