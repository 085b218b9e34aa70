package api

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// limit reads a container's limit from its cgroup, by the name of either version.
func (c *container) limit(v1, v2 string) string {
	c.n.t.Helper()
	return c.n.limit(daemon.Group(parent, c.id), v1, v2)
}

// limit is that of a pod that has a cgroup of its own.
func (p *pod) limit(v1, v2 string) string {
	p.n.t.Helper()
	return p.n.limit(daemon.OwnGroup(p.id), v1, v2)
}

func (n *node) limit(path, v1, v2 string) string {
	n.t.Helper()
	for _, root := range daemon.Hierarchies() {
		for _, name := range []string{v1, v2} {
			if st, err := os.Stat(filepath.Join(root, path, name)); err != nil || st.IsDir() {
				continue
			}
			if b, err := os.ReadFile(filepath.Join(root, path, name)); err == nil {
				return strings.TrimSpace(string(b))
			}
		}
	}
	n.t.Errorf("no cgroup %s has %s or %s", path, v1, v2)
	return ""
}

func (c *container) memory() string { return c.limit("memory.limit_in_bytes", "memory.max") }

func TestTrapOOMKilledInTheFirstStatus(t *testing.T) {
	n := start(t)
	p := n.runPod("oom")
	small := func(c *criapi.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = 20 << 20 }
	c := p.run("main", "dd if=/dev/zero of=/dev/null bs=100M count=1", small)
	// sh is told of the death of its child, and ends with its code: the first process was not the one killed.
	if st := c.ends(); st.ExitCode != 137 || st.Reason != "OOMKilled" {
		t.Errorf("the first status after the end: %d %s %q", st.ExitCode, st.Reason, st.Message)
	}
	c = p.run("first", "exec dd if=/dev/zero of=/dev/null bs=100M count=1", small)
	if st := c.ends(); st.ExitCode != 137 || st.Reason != "OOMKilled" {
		t.Errorf("the first status after the end: %d %s %q", st.ExitCode, st.Reason, st.Message)
	}
	// One whose child was killed and that ends well was not.
	c = p.run("survivor", "dd if=/dev/zero of=/dev/null bs=100M count=1; exit 0", small)
	c.mustEnd(0, "Completed")
	p.run("big enough", "exec dd if=/dev/zero of=/dev/null bs=10M count=1", func(c *criapi.ContainerConfig) {
		c.Metadata.Name, c.LogPath = "enough", "enough.log"
		small(c)
	}).mustEnd(0, "Completed")
}

// TestOOMOfThePod: the limit that was met is the pod's; the container that was killed for it says so.
func TestOOMOfThePod(t *testing.T) {
	n := start(t)
	p := n.runPod("oompod", func(c *criapi.PodSandboxConfig) {
		c.Linux.CgroupParent = ""
		c.Linux.Resources = &criapi.LinuxContainerResources{MemoryLimitInBytes: 24 << 20}
	})
	quiet := p.run("quiet", "", idle)
	c := p.run("main", "exec dd if=/dev/zero of=/dev/null bs=100M count=1", func(c *criapi.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = 0 })
	if st := c.ends(); st.ExitCode != 137 || st.Reason != "OOMKilled" || !strings.Contains(st.Message, "no limit of its own") {
		t.Errorf("the first status after the end: %d %s %q", st.ExitCode, st.Reason, st.Message)
	}
	quiet.exec("true")
}

// TestMemoryLimitTooSmallToStart: the user reads that it is the limit. Where the kernel kills within exec, past the
// point where it could still fail, the container counts as started.
func TestMemoryLimitTooSmallToStart(t *testing.T) {
	n := start(t)
	p := n.runPod("tiny")
	p.run("good", "", idle)
	for _, limit := range []int64{4 << 10, 64 << 10} {
		n.unchanged(func() {
			c := p.create("main", "sleep 1000", func(c *criapi.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = limit })
			defer c.remove()
			code := int32(137)
			if err := c.start(); err != nil {
				mustFail(t, err, codes.Unknown, c.id[:12], "op ", fmt.Sprintf("memory limit of %d bytes is too small", limit))
				code = 128
			}
			if st := c.ends(); st.ExitCode != code || st.Reason != "OOMKilled" || !strings.Contains(st.Message, "memory limit") {
				t.Errorf("with %d bytes: %d %s %q", limit, st.ExitCode, st.Reason, st.Message)
			}
		})
	}
}

func TestUpdateContainerResources(t *testing.T) {
	n := start(t)
	p := n.runPod("update")
	c := p.run("main", "head -c 30000000 /dev/zero > /dev/shm/x; echo ready; exec sleep 1000")
	c.says("ready")
	update := c.update
	if err := update(&criapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, CpuQuota: 30000, CpuPeriod: 100000}); err != nil {
		t.Fatal(err)
	}
	if got := c.memory(); got != "134217728" {
		t.Errorf("the memory limit is %s", got)
	}
	if got := c.limit("cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "30000") {
		t.Errorf("the CPU quota is %s", got)
	}
	r := c.status().GetResources().GetLinux()
	if r.GetMemoryLimitInBytes() != 128<<20 || r.GetCpuQuota() != 30000 || r.GetCpuShares() != 512 {
		t.Errorf("status: %v", r)
	}
	// All or nothing: less memory than is in use is refused, and the CPU quota that came with it is not in force.
	err := update(&criapi.LinuxContainerResources{CpuQuota: 40000, CpuPeriod: 100000, CpuShares: 700, MemoryLimitInBytes: 4 << 20})
	mustFail(t, err, codes.Unknown, c.id[:12], "memory")
	if got := c.limit("cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "30000") {
		t.Errorf("after a refused update the CPU quota is %s", got)
	}
	if got := c.memory(); got != "134217728" {
		t.Errorf("after a refused update the memory limit is %s", got)
	}
	if r := c.status().GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 128<<20 || r.GetCpuQuota() != 30000 || r.GetCpuShares() != 512 {
		t.Errorf("after a refused update the status says %v", r)
	}
	mustFail(t, update(&criapi.LinuxContainerResources{CpusetCpus: "not,a,list"}), codes.InvalidArgument, "cpuset_cpus")
	// A container that does not run yet starts with the new limits.
	d := p.create("later", "", idle)
	if _, err := n.Runtime.UpdateContainerResources(n.ctx(), &criapi.UpdateContainerResourcesRequest{ContainerId: d.id, Linux: &criapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}}); err != nil {
		t.Fatal(err)
	}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	if got := d.memory(); got != "67108864" {
		t.Errorf("a container that was updated before its start has the limit %s", got)
	}
	c.stop(0)
	mustFail(t, update(&criapi.LinuxContainerResources{CpuShares: 2}), codes.FailedPrecondition, "exited")
}
