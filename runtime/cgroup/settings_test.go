package cgroup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	devices "github.com/opencontainers/cgroups/devices/config"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func testLayout(mode string) Layout {
	v1 := map[string]string{}
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"} {
		v1[c] = "/cg/" + c
	}
	all := []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}
	switch mode {
	case "v2":
		return Layout{Mode: mode, Unified: "/cg", UnifiedControllers: all}
	case "hybrid":
		return Layout{Mode: mode, Mounts: v1, Unified: "/cg/unified", UnifiedControllers: []string{"hugetlb"}}
	}
	v1["hugetlb"] = "/cg/hugetlb"
	v1["net_cls"] = "/cg/net_cls,net_prio"
	v1["net_prio"] = "/cg/net_cls,net_prio"
	return Layout{Mode: "v1", Mounts: v1}
}

func testTree(t *testing.T, mode string) *Tree {
	t.Helper()
	tree, err := New(Config{Layout: testLayout(mode)})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// text renders a plan as "mount/file = value" lines.
func (p *plan) text(t *Tree) string {
	var lines []string
	for _, h := range t.list {
		for _, s := range p.forHierarchy(t, h) {
			if s.merge != nil {
				s.value = s.merge(s.initial)
			}
			lines = append(lines, fmt.Sprintf("%s/%s = %s", h.mount, s.file, s.value))
		}
	}
	return strings.Join(lines, "\n")
}

func TestSettings(t *testing.T) {
	everyday := &specs.LinuxResources{
		CPU:            &specs.LinuxCPU{Shares: new(uint64(512)), Quota: new(int64(50000)), Period: new(uint64(100000)), Cpus: "0-1"},
		Memory:         &specs.LinuxMemory{Limit: new(int64(64 << 20)), Swap: new(int64(96 << 20)), Reservation: new(int64(1 << 20))},
		Pids:           &specs.LinuxPids{Limit: new(int64(100))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
	}
	io := &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
		Weight:                  new(uint16(500)),
		ThrottleReadBpsDevice:   []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8}, Rate: 1000}},
		ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 16}}},
	}}
	for _, test := range []struct {
		name, mode string
		resources  *specs.LinuxResources
		want       string
	}{
		{"nothing", "hybrid", nil, ""},
		{"everyday", "hybrid", everyday, `/cg/unified/hugetlb.2MB.max = 4194304
/cg/unified/hugetlb.2MB.rsvd.max = 4194304
/cg/cpu/cpu.shares = 512
/cg/cpu/cpu.cfs_period_us = 100000
/cg/cpu/cpu.cfs_quota_us = 50000
/cg/cpuset/cpuset.cpus = 0-1
/cg/pids/pids.max = 100
/cg/memory/memory.limit_in_bytes = 67108864
/cg/memory/memory.memsw.limit_in_bytes = 100663296
/cg/memory/memory.soft_limit_in_bytes = 1048576`},
		{"everyday", "v2", everyday, `/cg/cpu.weight = 59
/cg/cpu.max = 50000 100000
/cg/cpuset.cpus = 0-1
/cg/memory.swap.max = 33554432
/cg/memory.max = 67108864
/cg/memory.low = 1048576
/cg/pids.max = 100
/cg/hugetlb.2MB.max = 4194304
/cg/hugetlb.2MB.rsvd.max = 4194304`},
		{"unlimited", "v1", &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: new(int64(-1))}, Pids: &specs.LinuxPids{Limit: new(int64(-1))},
			CPU: &specs.LinuxCPU{Quota: new(int64(-1)), Shares: new(uint64(0))},
		}, `/cg/cpu/cpu.cfs_quota_us = -1
/cg/pids/pids.max = max
/cg/memory/memory.limit_in_bytes = -1
/cg/memory/memory.memsw.limit_in_bytes = -1`},
		{"unlimited", "v2", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-1))}}, `/cg/memory.swap.max = max
/cg/memory.max = max`},
		{"no swap", "v2", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(4096)), Swap: new(int64(4096))}}, `/cg/memory.swap.max = 0
/cg/memory.max = 4096`},
		{"period alone", "v2", &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: new(uint64(5000))}}, `/cg/cpu.max = max 5000`},
		{"block io", "v1", io, `/cg/blkio/blkio.bfq.weight = 500
/cg/blkio/blkio.throttle.read_bps_device = 8:0 1000
/cg/blkio/blkio.throttle.write_iops_device = 8:16 0`},
		{"block io", "v2", io, `/cg/io.bfq.weight = 500
/cg/io.weight = default 4950
/cg/io.max = 8:0 rbps=1000
/cg/io.max = 8:16 wiops=max`},
		{"unified", "v2", &specs.LinuxResources{Unified: map[string]string{"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 wbps=2\n"}}, `/cg/io.max = 8:0 rbps=1
/cg/io.max = 8:16 wbps=2
/cg/memory.high = 1000`},
		{"network", "v1", &specs.LinuxResources{Network: &specs.LinuxNetwork{
			ClassID: new(uint32(7)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 3}},
		}}, `/cg/net_cls,net_prio/net_cls.classid = 7
/cg/net_cls,net_prio/net_prio.ifpriomap = eth0 3`},
		{"rdma", "v2", &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: new(uint32(2))}}}, `/cg/rdma.max = mlx5_1 hca_handle=2`},
		{"huge pages that no one has", "v1", &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "64KB"}}}, `/cg/hugetlb/hugetlb.64KB.limit_in_bytes = 0
/cg/hugetlb/hugetlb.64KB.rsvd.limit_in_bytes = 0`},
	} {
		t.Run(test.mode+" "+test.name, func(t *testing.T) {
			tree := testTree(t, test.mode)
			plan, err := tree.settings(test.resources)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, plan.text(tree)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSettingsErrorsNameTheField(t *testing.T) {
	for _, test := range []struct {
		name, mode string
		resources  specs.LinuxResources
		want       string
	}{
		{"swap below memory", "v1", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(10)), Swap: new(int64(5))}}, "memory.swap: 5"},
		{"swap alone", "v2", specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: new(int64(5))}}, "memory.swap: 5"},
		{"negative", "v1", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-5))}}, "resources.memory"},
		{"page size", "v1", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB", Limit: 1}}}, "hugepageLimits[0].pageSize"},
		{"net_cls", "v2", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: new(uint32(1))}}, "network.classID"},
		{"rdma", "hybrid", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"x": {}}}, `rdma["x"]`},
		{"unified on v1", "v1", specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}, "no cgroup v2"},
		{"unified on hybrid", "hybrid", specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}, "no memory controller"},
		{"unified path", "v2", specs.LinuxResources{Unified: map[string]string{"../x.y": "1"}}, "unified["},
		{"real time", "v2", specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: new(int64(1))}}, "realtimeRuntime"},
		{"device type", "v1", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "z"}}}, "devices[0].type"},
		{"device access", "v1", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{}, {Access: "rx"}}}, "devices[1].access"},
		{"swappiness", "v1", specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: new(uint64(101))}}, "swappiness"},
	} {
		_, err := testTree(t, test.mode).settings(&test.resources)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v does not name %q", test.name, err, test.want)
		}
	}
}

func TestSettingUndo(t *testing.T) {
	for _, test := range []struct {
		name, now, want string
		s               setting
	}{
		{"plain", "max 100000", "max 100000", setting{file: "cpu.max"}},
		{"switch", "oom_kill_disable 0\nunder_oom 0\noom_kill 3", "0", setting{file: "memory.oom_control"}},
		{"device that had one", "8:0 5\n8:16 7", "8:16 7", setting{value: "8:16 9", keyed: true, reset: "8:16 0"}},
		{"device that had none", "8:0 5", "8:16 0", setting{value: "8:16 9", keyed: true, reset: "8:16 0"}},
		{"nothing", "", "", setting{file: "cpuset.cpus"}},
		{"weight of all others", "default 100\n8:16 200", "default 100", setting{file: "io.weight", value: "50"}},
	} {
		if diff := cmp.Diff([]string{test.want}, test.s.undo(test.now)); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestUnifiedReset(t *testing.T) {
	for _, test := range []struct{ name, file, line, want string }{
		{"rates of a device", "io.max", "8:0 rbps=5", "8:0 rbps=max wbps=max riops=max wiops=max"},
		{"latency", "io.latency", "8:0 target=5", "8:0 target=0"},
		{"weight of a device", "io.weight", "8:0 50", "8:0 default"},
		{"rdma", "rdma.max", "mlx4_0 hca_handle=2", "mlx4_0 hca_handle=max hca_object=max"},
		{"misc", "misc.max", "res_a 3", "res_a max"},
	} {
		reset, keyed := unifiedReset(test.file, test.line)
		if reset != test.want || !keyed {
			t.Errorf("%s: %q %t, want %q", test.name, reset, keyed, test.want)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	rules, err := deviceRules([]specs.LinuxDeviceCgroup{
		{Access: "mwr"}, {Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(3)), Access: "wr"}, {Allow: true, Type: "u"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rules {
		got = append(got, fmt.Sprintf("%v %s", r.Allow, r.CgroupString()))
	}
	want := []string{"false a *:* rwm", "true c 1:3 rw", "true c *:* rwm"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	deny, allow := &devices.Rule{Type: 'a'}, &devices.Rule{Type: 'a', Allow: true}
	null := &devices.Rule{Type: 'c', Major: 1, Minor: 3}
	for _, test := range []struct {
		rules []*devices.Rule
		want  bool
	}{
		{[]*devices.Rule{deny, allow}, true}, {[]*devices.Rule{allow, deny}, false}, {[]*devices.Rule{allow, null}, false},
	} {
		if got := allowsAll(test.rules); got != test.want {
			t.Errorf("allowsAll = %v", got)
		}
	}
}

func TestJoinFilesPutMemoryLast(t *testing.T) {
	files := testTree(t, "hybrid").JoinFiles("/pod/ctr")
	if len(files) != 8 || files[7] != (JoinFile{"memory", "/cg/memory/pod/ctr/tasks"}) {
		t.Errorf("hybrid: %v", files)
	}
	files = testTree(t, "v2").JoinFiles("/pod/ctr")
	if diff := cmp.Diff([]JoinFile{{"", "/cg/pod/ctr/cgroup.procs"}}, files); diff != "" {
		t.Error(diff)
	}
	if n := len(testTree(t, "v1").JoinFiles("/x")); n != 10 {
		t.Errorf("v1 with a shared mount: %d files", n)
	}
}

func TestCheckPath(t *testing.T) {
	for _, path := range []string{"", "/", "a/b", "/a/../b", "/a/", "//a", "/a\nb", "/.."} {
		if checkPath(path) == nil {
			t.Errorf("%q was taken", path)
		}
	}
	if err := checkPath("/kubepods/burstable/pod1/c-2"); err != nil {
		t.Error(err)
	}
}

func TestSharesOfIsTheInverse(t *testing.T) {
	for _, weight := range []uint64{1, 59, 100, 10000} {
		shares := sharesOf(weight)
		plan, err := testTree(t, "v2").settings(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}})
		if err != nil || plan.settings[0].value != fmt.Sprint(weight) {
			t.Errorf("weight %d: shares %d give %s", weight, shares, plan.settings[0].value)
		}
	}
}

func TestParsePSI(t *testing.T) {
	got := parsePSI("some avg10=0.22 avg60=0.17 avg300=1.11 total=58761459\nfull avg10=0.00 avg60=0.13 avg300=0.96 total=57")
	want := PSI{Some: PSILine{0.22, 0.17, 1.11, 58761459}, Full: PSILine{0, 0.13, 0.96, 57}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
