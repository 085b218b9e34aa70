package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// groupFile reads a file of the container's cgroup, wherever its controller is; "" where this machine has none.
func (b *bundleDir) groupFile(controller, name string) string {
	for _, dir := range []string{controller, "unified", ""} {
		text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", dir, b.spec.Linux.CgroupsPath, name))
		if err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	return ""
}

// disk gives the number of a block device of this machine.
func disk(t *testing.T) (major, minor int64) {
	text, err := os.ReadFile("/proc/partitions")
	must(t, err)
	for _, line := range strings.Split(string(text), "\n")[2:] {
		if n, _ := fmt.Sscan(line, &major, &minor); n == 2 {
			return major, minor
		}
	}
	return 7, 0 // the first loop device
}

// groupWant is a file of a cgroup with what it has to have in it, for v1 and for v2.
type groupWant struct{ controller, v1, v1Has, v2, v2Has string }

// TestResources: each limit is in the kernel's files. What this machine lacks is an error that names the field.
func TestResources(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	u := func(v uint64) *uint64 { return &v }
	w := func(v uint16) *uint16 { return &v }
	major, minor := disk(t)
	device := specs.LinuxBlockIODevice{Major: major, Minor: minor}
	rate := func(v uint64) []specs.LinuxThrottleDevice {
		return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: device, Rate: v}}
	}
	dev := fmt.Sprintf("%d:%d", major, minor)
	class := uint32(7)
	yes := true
	for _, tc := range []struct {
		name   string
		set    specs.LinuxResources
		want   []groupWant
		orSays string // where the machine has no such file
	}{
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(64 << 20), Reservation: n(32 << 20), Swap: n(96 << 20)}}, []groupWant{
			{"memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864"}, {"memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"},
			{"memory", "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432"},
		}, ""},
		{"memory of v1", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(64 << 20), KernelTCP: n(16 << 20), Swappiness: u(7), DisableOOMKiller: &yes, UseHierarchy: &yes}}, []groupWant{
			{"memory", "memory.swappiness", "7", "", ""}, {"memory", "memory.oom_control", "oom_kill_disable 1", "", ""},
			{"memory", "memory.kmem.tcp.limit_in_bytes", "16777216", "", ""}, {"memory", "memory.use_hierarchy", "1", "", ""},
		}, "memory.kmem.tcp.limit_in_bytes"},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: u(512), Quota: n(50000), Period: u(200000), Burst: u(10000), Cpus: "0", Mems: "0"}}, []groupWant{
			{"cpu", "cpu.shares", "512", "cpu.weight", "59"}, {"cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 200000"}, {"cpu", "cpu.cfs_period_us", "200000", "", ""},
			{"cpu", "cpu.cfs_burst_us", "10000", "cpu.max.burst", "10000"}, {"cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0"}, {"cpuset", "cpuset.mems", "0", "cpuset.mems", "0"},
		}, ""},
		{"cpu, idle", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: n(1)}}, []groupWant{{"cpu", "cpu.idle", "1", "cpu.idle", "1"}}, ""},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: n(99)}}, []groupWant{{"pids", "pids.max", "99", "pids.max", "99"}}, ""},
		{"throttle", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: rate(1000001), ThrottleWriteBpsDevice: rate(1000002), ThrottleReadIOPSDevice: rate(1003), ThrottleWriteIOPSDevice: rate(1004),
		}}, []groupWant{
			{"blkio", "blkio.throttle.read_bps_device", dev + " 1000001", "io.max", "rbps=1000001"}, {"blkio", "blkio.throttle.write_bps_device", dev + " 1000002", "io.max", "wbps=1000002"},
			{"blkio", "blkio.throttle.read_iops_device", dev + " 1003", "io.max", "riops=1003"}, {"blkio", "blkio.throttle.write_iops_device", dev + " 1004", "io.max", "wiops=1004"},
		}, ""},
		{"weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: w(500)}}, []groupWant{{"blkio", "blkio.bfq.weight", "500", "", ""}}, "blkio.bfq.weight"},
		{"weight of leaves", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: w(500)}}, nil, "blkio.leaf_weight"},
		{"weight of a device", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: device, Weight: w(300), LeafWeight: w(300)}}}}, nil, "weight"},
		{"huge pages", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}, []groupWant{
			{"hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304", "hugetlb.2MB.max", "4194304"}, {"hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304", "hugetlb.2MB.rsvd.max", "4194304"},
		}, ""},
		{"network class", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: &class}}, []groupWant{{"net_cls", "net_cls.classid", "7", "", ""}}, "resources.network.classID: this machine has no net_cls controller"},
		{"network priority", specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 3}}}}, []groupWant{
			{"net_prio", "net_prio.ifpriomap", "lo 3", "", ""}}, "resources.network.priorities[0]: this machine has no net_prio controller"},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_0": {HcaHandles: &class, HcaObjects: &class}}}, nil, "rdma"},
		{"unified", specs.LinuxResources{Unified: map[string]string{"hugetlb.2MB.max": "6291456", "cgroup.max.depth": "5"}}, []groupWant{
			{"unified", "", "", "hugetlb.2MB.max", "6291456"}, {"unified", "", "", "cgroup.max.depth", "5"},
		}, "resources.unified"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "exec busybox sleep 1000")
			tc.set.Devices = b.spec.Linux.Resources.Devices
			b.spec.Linux.Resources = &tc.set
			b.write()
			r := b.mini("run", "-d", "x")
			if r.code != 0 && tc.orSays != "" && strings.Contains(r.err, tc.orSays) && strings.Count(r.err, "\n") == 1 {
				b.nothingLeft()
				return
			}
			if r.code != 0 {
				t.Fatalf("%+v", r)
			}
			for _, f := range tc.want {
				name, has := f.v1, f.v1Has
				got := ""
				if name != "" {
					got = b.groupFile(f.controller, name)
				}
				if got == "" {
					name, has = f.v2, f.v2Has
					got = b.groupFile(f.controller, name)
				}
				if !strings.Contains(got, has) || got == "" && name != "" {
					t.Errorf("%s has %q, want %q", name, got, has)
				}
			}
			b.ok("delete", "--force", "x")
		})
	}
}

// TestMemoryLimitIsChecked: an update below what is in use is refused if the specification wants it so.
func TestMemoryLimitIsChecked(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	limit := int64(64 << 20)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	b.write()
	b.ok("run", "-d", "x")
	must(t, os.WriteFile(filepath.Join(b.dir, "resources.json"), []byte(`{"memory": {"limit": 4096, "checkBeforeUpdate": true}}`), 0o600))
	b.fails("resources.memory.limit: 4096 is below the", "update", "--resources", "resources.json", "x")
	b.ok("delete", "--force", "x")
}

// TestDeviceRules: what may be opened, each device with its letters; the default devices always. Every node may be made, as
// runc has it: without a rule it cannot be opened.
func TestDeviceRules(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	b := newBundle(t, strings.Join([]string{
		"cd /dev", "for d in a b; do busybox head -c0 < $d && echo $d read; true > $d && echo $d written; done",
		"busybox mknod made c 1 12 && echo b made; true > made && echo b written", "echo > null && echo null written",
	}, "; ")+" 2>&1")
	for _, set := range []*[]string{&b.spec.Process.Capabilities.Bounding, &b.spec.Process.Capabilities.Effective, &b.spec.Process.Capabilities.Permitted} {
		*set = append(*set, "CAP_MKNOD")
	}
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/a", Type: "c", Major: 1, Minor: 11}, {Path: "/dev/b", Type: "c", Major: 1, Minor: 12}}
	b.spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: n(1), Minor: n(11), Access: "w"},
	}
	b.write()
	var got []string
	for line := range strings.Lines(b.mini("run", "x").out) {
		if !strings.Contains(line, ":") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if allowed := []string{"a written", "b made", "null written"}; !slices.Equal(got, allowed) {
		t.Errorf("allowed was %q, want %q", got, allowed)
	}
}

// TestDeviceNodes: type, number, mode and owner of each, and what is there already is kept when it is the same.
func TestDeviceNodes(t *testing.T) {
	mode := os.FileMode(0o604)
	uid, gid := uint32(7), uint32(8)
	out := inside(t, "stat -c '%n %A %t:%T %u:%g' /dev/char /dev/block /dev/pipe /dev/sub/char /dev/null; ls -l /dev/ptmx | grep -c 'ptmx -> pts/ptmx'", func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/char", Type: "u", Major: 1, Minor: 11, FileMode: &mode, UID: &uid, GID: &gid},
			{Path: "/dev/block", Type: "b", Major: 7, Minor: 259},
			{Path: "/dev/pipe", Type: "p", FileMode: &mode},
			{Path: "/dev/sub/char", Type: "c", Major: 1, Minor: 5},
			{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode},
			{Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2},
		}
	})
	want(t, out, "/dev/char crw----r-- 1:b 7:8\n/dev/block brw-rw-rw- 7:103 0:0\n/dev/pipe prw----r-- 0:0 0:0\n/dev/sub/char crw-rw-rw- 1:5 0:0\n/dev/null crw----r-- 1:3 0:0\n1\n")
}

// TestRootfsPropagation: whether the container sees what the host mounts below its root afterwards. The host sees nothing of
// the container's, not even with "shared", which is a peer group of the container's own (runtime-spec, config-linux.md).
func TestRootfsPropagation(t *testing.T) {
	for _, tc := range []struct {
		name     string
		fromHost bool
		want     string // in the optional fields of / in mountinfo
	}{
		{"private", false, "-"},
		{"rprivate", false, "-"},
		{"slave", true, "master:"},
		{"rslave", true, "master:"},
		{"shared", true, "shared:"},
		{"rshared", true, "shared:"},
		{"unbindable", false, "unbindable"},
		{"", true, "master:"},
	} {
		t.Run("propagation "+tc.name, func(t *testing.T) {
			b := newBundle(t, "exec busybox sleep 1000")
			root := filepath.Join(b.dir, "rootfs")
			must(t, unix.Mount(root, root, "", unix.MS_BIND, ""))
			must(t, unix.Mount("", root, "", unix.MS_SHARED, ""))
			defer func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) }()
			b.spec.Linux.RootfsPropagation = tc.name
			for _, set := range []*[]string{&b.spec.Process.Capabilities.Bounding, &b.spec.Process.Capabilities.Effective, &b.spec.Process.Capabilities.Permitted} {
				*set = append(*set, "CAP_SYS_ADMIN")
			}
			b.write()
			b.ok("run", "-d", "x")
			defer b.ok("delete", "-f", "x")
			must(t, unix.Mount("tmpfs", filepath.Join(root, "tmp"), "tmpfs", 0, ""))
			defer func() { must(t, unix.Unmount(filepath.Join(root, "tmp"), unix.MNT_DETACH)) }()
			b.ok("exec", "x", "busybox", "mount", "-t", "tmpfs", "x", "/rec")
			table := b.ok("exec", "x", "busybox", "cat", "/proc/self/mountinfo")
			for line := range strings.Lines(table) {
				if f := strings.Fields(line); f[4] == "/" && !strings.HasPrefix(f[6], tc.want) {
					t.Errorf("/ has no %q: %s", tc.want, line)
				}
			}
			if seen := strings.Contains(table, " /tmp "); seen != tc.fromHost {
				t.Errorf("the container sees the host's mount: %v, want %v", seen, tc.fromHost)
			}
			ours, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			if strings.Contains(string(ours), root+"/rec ") {
				t.Error("the host sees the container's mount")
			}
		})
	}
}
