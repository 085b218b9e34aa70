package api

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

func TestContainerStats(t *testing.T) {
	n := start(t)
	p := n.runPod("stats")
	c := p.run("main", "head -c 20000000 /dev/zero > /file; head -c 10000000 /dev/zero > /dev/shm/x; echo ready; while :; do :; done")
	quiet := p.create("quiet", "", idle)
	c.says("ready")
	stats := func() *criapi.ContainerStats {
		r, err := n.Runtime.ContainerStats(n.ctx(), &criapi.ContainerStatsRequest{ContainerId: c.id})
		if err != nil {
			t.Fatal(err)
		}
		return r.Stats
	}
	first := stats()
	time.Sleep(300 * time.Millisecond)
	second := stats()
	wall := second.Cpu.Timestamp - first.Cpu.Timestamp
	used := int64(second.Cpu.UsageCoreNanoSeconds.Value - first.Cpu.UsageCoreNanoSeconds.Value)
	if wall <= 0 || used <= wall/50 || used > wall*11/10 {
		t.Errorf("a busy loop used %d ns of CPU in %d ns", used, wall)
	}
	if nano := second.Cpu.UsageNanoCores.GetValue(); nano < 20e6 || nano > 1.2e9 {
		t.Errorf("a busy loop uses %d nano cores", nano)
	}
	m := second.Memory
	if ws := m.GetWorkingSetBytes().GetValue(); ws < 10e6 || ws > 256<<20 || m.GetUsageBytes().GetValue() < ws || m.GetRssBytes().GetValue() == 0 || m.GetAvailableBytes().GetValue() > 256<<20 {
		t.Errorf("memory: %v", m)
	}
	// Without a limit on swap of its own a container has none: nothing is used, and nothing to be had.
	if s := second.Swap; hasSwapAccounting() && (s == nil || s.Timestamp == 0 || s.SwapUsageBytes.GetValue() != 0 || s.SwapAvailableBytes == nil || s.SwapAvailableBytes.Value != 0) {
		t.Errorf("swap: %v", s)
	}
	for what, psi := range map[string]*criapi.PsiStats{"cpu": second.Cpu.GetPsi(), "memory": m.GetPsi(), "io": second.Io.GetPsi()} {
		if (psi != nil) != hasPSI() || psi != nil && (psi.Some == nil || psi.Full == nil) {
			t.Errorf("pressure on %s: %v; the machine tells it: %t", what, psi, hasPSI())
		}
	}
	if w := second.WritableLayer; w.GetUsedBytes().GetValue() < 20e6 || w.GetUsedBytes().GetValue() > 40e6 || w.GetInodesUsed().GetValue() == 0 || w.GetFsId().GetMountpoint() == "" {
		t.Errorf("writable layer: %v", w)
	}
	if a := second.Attributes; a.GetId() != c.id || a.GetMetadata().GetName() != "main" {
		t.Errorf("attributes: %v", a)
	}
	list, err := n.Runtime.ListContainerStats(n.ctx(), &criapi.ListContainerStatsRequest{Filter: &criapi.ContainerStatsFilter{PodSandboxId: p.id}})
	if err != nil || len(list.Stats) != 1 || list.Stats[0].Attributes.Id != c.id {
		t.Errorf("ListContainerStats: %v, %v", list, err)
	}
	if list, err = n.Runtime.ListContainerStats(n.ctx(), &criapi.ListContainerStatsRequest{Filter: &criapi.ContainerStatsFilter{Id: quiet.id}}); err != nil || len(list.Stats) != 0 {
		t.Errorf("ListContainerStats of what does not run: %v, %v", list, err)
	}
	c.stop(0)
	if st := stats(); st.Cpu != nil || st.Memory != nil || st.WritableLayer == nil {
		t.Errorf("after its end: %v", st)
	}
}

// hasSwapAccounting says whether cgroups here count swap, whether or not there is any.
func hasSwapAccounting() bool {
	for _, root := range daemon.Hierarchies() {
		for _, file := range []string{"memory.memsw.limit_in_bytes", "memory.swap.max"} {
			if _, err := os.Stat(filepath.Join(root, parent, file)); err == nil {
				return true
			}
		}
	}
	return false
}

// hasPSI says whether this machine tells of pressure per cgroup: on a pure cgroup v2, and not with psi=0.
func hasPSI() bool {
	_, err := os.Stat("/proc/pressure/cpu")
	return onV2() && err == nil
}

// TestWritableLayerIsNotWalkedForEachQuestion: a question is answered from what was measured, at once.
func TestWritableLayerIsNotWalkedForEachQuestion(t *testing.T) {
	n := start(t)
	c := n.runPod("layer").run("main", "mkdir /many; cd /many; for d in $(seq 40); do mkdir $d; for f in $(seq 200); do : > $d/$f; done; done; ln /many/1/1 /many/again; echo ready; exec sleep 1000")
	c.says("ready")
	stats := func() *criapi.FilesystemUsage {
		r, err := n.Runtime.ContainerStats(n.ctx(), &criapi.ContainerStatsRequest{ContainerId: c.id})
		if err != nil {
			t.Fatal(err)
		}
		return r.Stats.GetWritableLayer()
	}
	first := stats()
	if inodes := first.GetInodesUsed().GetValue(); inodes < 8041 || inodes > 8045 {
		t.Errorf("%d inodes, want 8000 files, 41 directories and the root", inodes)
	}
	for range 50 {
		if again := stats(); again.GetTimestamp() != first.GetTimestamp() {
			t.Fatal("it was measured again within the time that one measurement is good for")
		}
	}
}

func (p *pod) stats() *criapi.PodSandboxStats {
	p.n.t.Helper()
	r, err := p.n.Runtime.PodSandboxStats(p.n.ctx(), &criapi.PodSandboxStatsRequest{PodSandboxId: p.id})
	if err != nil {
		p.n.t.Fatalf("PodSandboxStats: %v", err)
	}
	return r.Stats
}

func TestPodSandboxStats(t *testing.T) {
	n := start(t)
	p := n.runPod("own", func(c *criapi.PodSandboxConfig) { c.Linux.CgroupParent = "" })
	busy := p.run("busy", "sleep 1001 & sleep 1002 & head -c 10000000 /dev/zero > /dev/shm/x; echo ready; while :; do :; done")
	p.run("idle", "", idle)
	busy.says("ready")
	p.stats()
	time.Sleep(200 * time.Millisecond)
	st := p.stats()
	if a := st.GetAttributes(); a.GetId() != p.id || a.GetMetadata().GetName() != "own" || a.GetLabels()["name"] != "own" {
		t.Errorf("attributes: %v", a)
	}
	l := st.GetLinux()
	var sum uint64
	for _, c := range l.GetContainers() {
		sum += c.GetCpu().GetUsageCoreNanoSeconds().GetValue()
	}
	if got := l.GetCpu().GetUsageCoreNanoSeconds().GetValue(); len(l.GetContainers()) != 2 || got == 0 || got > 2*sum || 2*got < sum {
		t.Errorf("CPU %v with %d containers that used %d", l.GetCpu(), len(l.GetContainers()), sum)
	}
	if nano := l.GetCpu().GetUsageNanoCores().GetValue(); nano < 20e6 || nano > 1.5e9 {
		t.Errorf("a busy loop uses %d nano cores", nano)
	}
	if m := l.GetMemory(); m.GetWorkingSetBytes().GetValue() < 10e6 || m.GetUsageBytes().GetValue() < 10e6 || m.GetTimestamp() == 0 {
		t.Errorf("memory: %v", m)
	}
	if got := l.GetProcess(); got.GetProcessCount().GetValue() != 4 || got.GetTimestamp() == 0 {
		t.Errorf("processes: %v, want 4", got)
	}
	if psi := l.GetCpu().GetPsi(); (psi != nil) != hasPSI() || (l.GetIo() != nil) != hasPSI() {
		t.Errorf("pressure %v, I/O %v; the machine has it: %t", psi, l.GetIo(), hasPSI())
	}
	// Of pods that were given one cgroup together each has the sum of its own containers.
	shared, other := n.runPod("shared"), n.runPod("other")
	shared.run("main", "", idle)
	other.run("main", "sleep 1003 & sleep 1004 & exec sleep 1005")
	if got := shared.stats().GetLinux(); got.GetProcess().GetProcessCount().GetValue() != 1 || got.GetMemory().GetUsageBytes().GetValue() == 0 {
		t.Errorf("a pod with one process, whose cgroup another has too: %v", got)
	}
}

// TestPodNetworkStats counts what the pod counts, by the names that it has for its interfaces.
func TestPodNetworkStats(t *testing.T) {
	n := start(t)
	p := n.runPod("network")
	c := p.run("main", "", idle)
	before := p.stats().GetLinux().GetNetwork()
	if before.GetDefaultInterface().GetName() != "eth0" || before.GetTimestamp() == 0 || len(before.GetInterfaces()) != 0 {
		t.Fatalf("network: %v", before)
	}
	c.exec("ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p' > /gw; ping -c 5 -s 1000 $(cat /gw)")
	after := p.stats().GetLinux().GetNetwork().GetDefaultInterface()
	if sent := after.GetTxBytes().GetValue() - before.GetDefaultInterface().GetTxBytes().GetValue(); sent < 5000 || sent > 50000 {
		t.Errorf("%d bytes were sent by five pings of 1000", sent)
	}
	if got := after.GetRxBytes().GetValue() - before.GetDefaultInterface().GetRxBytes().GetValue(); got < 5000 || got > 50000 {
		t.Errorf("%d bytes came back", got)
	}
	// What else is in the pod is counted beside it: what a second network has brought, say.
	mustRun(t, "nsenter", "--net="+filepath.Join(n.Run, "netns", p.id), "ip", "link", "add", "net1", "type", "veth", "peer", "name", "net2")
	mustRun(t, "nsenter", "--net="+filepath.Join(n.Run, "netns", p.id), "sh", "-c", "ip link set net2 up; ip link set net1 up; ip addr add 192.0.2.1/24 dev net1")
	c.exec("ping -c 1 -W 1 192.0.2.7; true") // nobody is there, but he is asked for
	names := map[string]uint64{}
	for _, i := range p.stats().GetLinux().GetNetwork().GetInterfaces() {
		names[i.GetName()] = i.GetTxBytes().GetValue()
	}
	if tx, ok := names["net1"]; !ok || tx == 0 || len(names) != 2 || p.stats().GetLinux().GetNetwork().GetDefaultInterface().GetName() != "eth0" {
		t.Errorf("the other interfaces: %v", names)
	}
	host := n.runPod("host", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	})
	if got := host.stats().GetLinux().GetNetwork(); got != nil {
		t.Errorf("a pod in the node's network has one of its own: %v", got)
	}
}

func TestListPodSandboxStats(t *testing.T) {
	n := start(t)
	a, b, stopped := n.runPod("a"), n.runPod("b"), n.runPod("stopped")
	a.run("main", "", idle)
	if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: stopped.id}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		filter *criapi.PodSandboxStatsFilter
		want   []string
	}{
		{"all that are ready", nil, []string{a.id, b.id}},
		{"by id", &criapi.PodSandboxStatsFilter{Id: b.id}, []string{b.id}},
		{"by a part of an id", &criapi.PodSandboxStatsFilter{Id: a.id[:20]}, []string{a.id}},
		{"by label", &criapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"name": "a"}}, []string{a.id}},
		{"by a label that none has", &criapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"name": "c"}}, nil},
	} {
		r, err := n.Runtime.ListPodSandboxStats(n.ctx(), &criapi.ListPodSandboxStatsRequest{Filter: c.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, st := range r.Stats {
			got = append(got, st.GetAttributes().GetId())
			if st.GetLinux().GetNetwork() == nil || st.GetLinux().GetProcess() == nil {
				t.Errorf("%s: %v", c.name, st)
			}
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if st := stopped.stats(); st.GetAttributes().GetId() != stopped.id || st.GetLinux().GetCpu() != nil {
		t.Errorf("of a pod that is stopped: %v", st)
	}
	_, err := n.Runtime.PodSandboxStats(n.ctx(), &criapi.PodSandboxStatsRequest{PodSandboxId: "nobody"})
	mustFail(t, err, codes.NotFound, "nobody")
}

// TestOOMKilledInTheFirstStatus, fifty times: whoever sees a container ended sees why.
func TestOOMKilledInTheFirstStatus(t *testing.T) {
	n := start(t)
	p := n.runPod("oom")
	for i := range 50 {
		c := p.run(fmt.Sprint("main", i), "exec dd if=/dev/zero of=/dev/null bs=100M count=1", func(c *criapi.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = 20 << 20 })
		st := c.status()
		for limit := time.Now().Add(10 * time.Second); st.State != criapi.ContainerState_CONTAINER_EXITED && time.Now().Before(limit); {
			st = c.status() // without a pause: the first is caught
		}
		if st.ExitCode != 137 || st.Reason != "OOMKilled" {
			t.Fatalf("round %d: the first status after the end is %d %s %q", i, st.ExitCode, st.Reason, st.Message)
		}
		c.remove()
	}
}
