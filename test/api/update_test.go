package api

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (c *container) update(r *criapi.LinuxContainerResources) error {
	_, err := c.n.Runtime.UpdateContainerResources(c.n.ctx(), &criapi.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: r})
	return err
}

func (c *container) mustUpdate(r *criapi.LinuxContainerResources) {
	c.n.t.Helper()
	if err := c.update(r); err != nil {
		c.n.t.Fatalf("UpdateContainerResources %v: %v", r, err)
	}
}

func (c *container) resources() *criapi.LinuxContainerResources {
	c.n.t.Helper()
	return c.status().GetResources().GetLinux()
}

// swap is the limit of memory and swap together.
func (c *container) swap() string { return c.limit("memory.memsw.limit_in_bytes", "memory.swap.max") }

// again starts the daemon anew under the running containers.
func (n *node) again() {
	n.t.Helper()
	if err := n.Stop(); err != nil {
		n.t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// onV2 says whether the memory controller is on cgroup v2.
func onV2() bool {
	b, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return strings.Contains(string(b), "memory")
}

// TestUpdateSwap: a limit on memory alone allows no swap; one on both together is taken as it is.
func TestUpdateSwap(t *testing.T) {
	n := start(t)
	c := n.runPod("swap").run("main", "", idle)
	both := map[bool]string{false: "201326592", true: "67108864"} // v2 counts swap alone
	none := map[bool]string{false: "134217728", true: "0"}
	c.mustUpdate(&criapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, MemorySwapLimitInBytes: 192 << 20})
	if got := c.swap(); c.memory() != "134217728" || got != both[onV2()] {
		t.Errorf("memory is limited to %s, with swap to %s", c.memory(), got)
	}
	if r := c.resources(); r.MemorySwapLimitInBytes != 192<<20 {
		t.Errorf("status: %v", r)
	}
	mustFail(t, c.update(&criapi.LinuxContainerResources{MemorySwapLimitInBytes: 64 << 20}), codes.InvalidArgument, "memory_swap_limit_in_bytes")
	c.mustUpdate(&criapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20})
	if got := c.swap(); got != none[onV2()] {
		t.Errorf("after an update of memory alone, with swap it is limited to %s", got)
	}
	c.mustUpdate(&criapi.LinuxContainerResources{MemoryLimitInBytes: 300 << 20, MemorySwapLimitInBytes: -1})
	if got := c.swap(); got != "max" && got != "9223372036854771712" {
		t.Errorf("without a limit on swap it is %s", got)
	}
}

// TestUpdateCpuset pins to the first CPU, and gives it back when a later file refuses.
func TestUpdateCpuset(t *testing.T) {
	n := start(t)
	c := n.runPod("cpuset").run("main", "", idle)
	c.mustUpdate(&criapi.LinuxContainerResources{CpusetCpus: "0", CpusetMems: "0"})
	if got := c.limit("cpuset.cpus", "cpuset.cpus"); got != "0" || c.resources().CpusetCpus != "0" {
		t.Errorf("cpuset.cpus is %s, status %v", got, c.resources())
	}
	if got := c.exec("grep Cpus_allowed_list /proc/self/status"); !strings.HasSuffix(got, "\t0") {
		t.Errorf("inside: %s", got)
	}
	mustFail(t, c.update(&criapi.LinuxContainerResources{CpuShares: 77, CpusetCpus: "4095", MemoryLimitInBytes: 100 << 20}), codes.Unknown, "cpuset.cpus", "4095")
	if r := c.resources(); r.CpusetCpus != "0" || r.CpuShares != 512 || r.MemoryLimitInBytes != 256<<20 || c.memory() != "268435456" {
		t.Errorf("after a refused update: %v, memory %s", r, c.memory())
	}
}

func TestUpdateHugepages(t *testing.T) {
	n := start(t)
	c := n.runPod("hugepages").run("main", "", idle)
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
		t.Skip("this kernel has no huge pages of 2 MB")
	}
	limits := func(size string, n uint64) *criapi.LinuxContainerResources {
		return &criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: size, Limit: n}}}
	}
	c.mustUpdate(limits("2MB", 4<<20))
	c.mustUpdate(&criapi.LinuxContainerResources{CpuShares: 300}) // does not touch them
	if got := c.limit("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"); got != "4194304" {
		t.Errorf("the limit is %s", got)
	}
	c.mustUpdate(limits("2MB", 0))
	if got := c.limit("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"); got != "0" || len(c.resources().HugepageLimits) != 1 {
		t.Errorf("the limit is %s, status %v", got, c.resources())
	}
	mustFail(t, c.update(limits("3MB", 1)), codes.InvalidArgument, "hugepage_limits[0].page_size", "3MB")
}

// TestUpdateUnified: what cgroup v2 has goes through, what it has not is named.
func TestUpdateUnified(t *testing.T) {
	n := start(t)
	c := n.runPod("unified").run("main", "", idle)
	err := c.update(&criapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "100000000"}})
	if !onV2() {
		mustFail(t, err, codes.InvalidArgument, `unified["memory.high"]`, "no cgroup v2 controller memory")
		mustFail(t, c.update(&criapi.LinuxContainerResources{CpuShares: 99, Unified: map[string]string{"hugetlb.2MB.max": "not a number"}}), codes.Unknown, "hugetlb.2MB.max")
		c.mustUpdate(&criapi.LinuxContainerResources{Unified: map[string]string{"hugetlb.2MB.max": "2097152"}})
		if got := c.limit("", "hugetlb.2MB.max"); got != "2097152" || c.resources().CpuShares != 512 {
			t.Errorf("hugetlb.2MB.max is %s, status %v", got, c.resources())
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	c.mustUpdate(&criapi.LinuxContainerResources{Unified: map[string]string{"memory.low": "4096"}})
	if high := c.limit("", "memory.high"); !strings.HasPrefix(high, "9999") && !strings.HasPrefix(high, "1000") || len(c.resources().Unified) != 2 {
		t.Errorf("memory.high is %s, status %v", high, c.resources())
	}
	mustFail(t, c.update(&criapi.LinuxContainerResources{CpuShares: 99, Unified: map[string]string{"memory.low": "8192", "memory.max": "not a number"}}), codes.Unknown, "memory.max")
	if low := c.limit("", "memory.low"); low != "4096" || c.resources().CpuShares != 512 {
		t.Errorf("after a refused update memory.low is %s, status %v", low, c.resources())
	}
}

// TestUpdateOOMScore reaches every process that has not chosen a score of its own, and what is executed later.
func TestUpdateOOMScore(t *testing.T) {
	n := start(t)
	p := n.runPod("score")
	score := func(v int64) func(*criapi.ContainerConfig) {
		return func(c *criapi.ContainerConfig) { c.Linux.Resources.OomScoreAdj = v }
	}
	c := p.run("main", "(echo 990 > /proc/self/oom_score_adj; exec sleep 1001) & sleep 1002 & echo ready; exec sleep 1003", score(800))
	c.says("ready")
	look := func() string {
		return c.exec("cat /proc/1/oom_score_adj; for n in 1001 1002; do for d in /proc/[0-9]*; do grep -aq ^sleep.$n $d/cmdline && cat $d/oom_score_adj; done; done; cat /proc/self/oom_score_adj")
	}
	until(t, "the child has not set its score", func() bool { return strings.Contains(look(), "990") })
	c.mustUpdate(&criapi.LinuxContainerResources{OomScoreAdj: 900})
	if got := look(); got != "900\n990\n900\n900" || c.resources().OomScoreAdj != 900 {
		t.Errorf("scores of init, its children and an exec: %q, status %v", got, c.resources())
	}
	mustFail(t, c.update(&criapi.LinuxContainerResources{OomScoreAdj: 850, CpusetCpus: "4095"}), codes.Unknown, "cpuset")
	mustFail(t, c.update(&criapi.LinuxContainerResources{OomScoreAdj: 1001}), codes.InvalidArgument, "oom_score_adj")
	if got := look(); got != "900\n990\n900\n900" || c.resources().OomScoreAdj != 900 {
		t.Errorf("after a refused update: %q, status %v", got, c.resources())
	}
	later := p.create("later", "", idle, score(800))
	later.mustUpdate(&criapi.LinuxContainerResources{OomScoreAdj: 950})
	if err := later.start(); err != nil {
		t.Fatal(err)
	}
	if got := later.exec("cat /proc/1/oom_score_adj"); got != "950" {
		t.Errorf("updated before its start: %s", got)
	}
}

// TestUpdateOOMScoreOfMany: all get it, however few descriptors the daemon may have.
func TestUpdateOOMScoreOfMany(t *testing.T) {
	n := start(t)
	p := n.runPod("many")
	c := p.run("main", "i=0; while [ $i -lt 700 ]; do sleep 1001 & i=$((i+1)); done; echo ready; exec sleep 1002", func(c *criapi.ContainerConfig) { c.Linux.Resources.OomScoreAdj = 800 })
	c.says("ready")
	var had unix.Rlimit
	if err := unix.Prlimit(n.PID(), unix.RLIMIT_NOFILE, nil, &had); err != nil {
		t.Fatal(err)
	}
	set := func(l unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(n.PID(), unix.RLIMIT_NOFILE, &l, nil); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: 500, Max: had.Max})
	defer set(had)
	c.mustUpdate(&criapi.LinuxContainerResources{OomScoreAdj: 900})
	set(had)
	if got := c.exec("cat /proc/[0-9]*/oom_score_adj | grep -c '^900$'"); got < "701" {
		t.Errorf("%s of 701 processes have the new score", got)
	}
}

// TestUpdateSurvivesARestart of the daemon, for a container that runs and for one that does not yet.
func TestUpdateSurvivesARestart(t *testing.T) {
	n := start(t)
	p := n.runPod("survive")
	c, later := p.run("main", "", idle), p.create("later", "", idle)
	r := &criapi.LinuxContainerResources{MemoryLimitInBytes: 100 << 20, CpuShares: 333}
	c.mustUpdate(r)
	later.mustUpdate(r)
	n.again()
	if err := later.start(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*container{c, later} {
		if got := c.resources(); got.MemoryLimitInBytes != 100<<20 || got.CpuShares != 333 || c.memory() != "104857600" {
			t.Errorf("after a restart: %v, memory %s", got, c.memory())
		}
	}
	c.mustUpdate(&criapi.LinuxContainerResources{CpuShares: 444})
	if got := c.resources(); got.CpuShares != 444 || got.MemoryLimitInBytes != 100<<20 {
		t.Errorf("updated after a restart: %v", got)
	}
}

func TestUpdatePodSandboxResources(t *testing.T) {
	n := start(t)
	update := func(p *pod, r *criapi.LinuxContainerResources) error {
		_, err := n.Runtime.UpdatePodSandboxResources(n.ctx(), &criapi.UpdatePodSandboxResourcesRequest{
			PodSandboxId: p.id, Resources: r, Overhead: &criapi.LinuxContainerResources{MemoryLimitInBytes: 8 << 20},
		})
		return err
	}
	own := n.runPod("own", func(c *criapi.PodSandboxConfig) { c.Linux.CgroupParent = "" })
	of := func(p *pod) *criapi.LinuxPodSandboxConfig {
		t.Helper()
		r, err := n.Runtime.PodSandboxStatus(n.ctx(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var info struct{ Config *criapi.PodSandboxConfig }
		if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil {
			t.Fatal(err)
		}
		return info.Config.GetLinux()
	}
	limit := func() string { return own.limit("memory.limit_in_bytes", "memory.max") }
	if err := update(own, &criapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 99}); err != nil {
		t.Fatal(err)
	}
	if got := limit(); got != "75497472" || of(own).GetResources().GetMemoryLimitInBytes() != 64<<20 {
		t.Errorf("a pod with 64 MiB and 8 of overhead is limited to %s: %v", got, of(own))
	}
	mustFail(t, update(own, &criapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpusetCpus: "4095"}), codes.Unknown, "cpuset")
	mustFail(t, update(own, &criapi.LinuxContainerResources{MemoryLimitInBytes: -9}), codes.InvalidArgument, "memory_limit_in_bytes")
	n.again()
	if got := limit(); got != "75497472" || of(own).GetResources().GetMemoryLimitInBytes() != 64<<20 {
		t.Errorf("after refused updates and a restart the pod is limited to %s: %v", got, of(own))
	}
	// The kubelet's cgroup is the kubelet's.
	p := n.runPod("kubelet")
	if err := update(p, &criapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}); err != nil || of(p).GetOverhead().GetMemoryLimitInBytes() != 8<<20 {
		t.Errorf("%v, config %v", err, of(p))
	}
	if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	mustFail(t, update(p, &criapi.LinuxContainerResources{CpuShares: 5}), codes.FailedPrecondition, "not ready")
}
