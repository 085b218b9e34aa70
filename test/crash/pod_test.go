package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// podConfig is what kubelet would send for a pod of this name.
func (n *node) podConfig(name string, ports ...*criapi.PortMapping) *criapi.PodSandboxConfig {
	return &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "crash"}, Hostname: name, LogDirectory: filepath.Join(n.logs, name), PortMappings: ports,
		Labels: map[string]string{"name": name},
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: n.cgroup,
			SecurityContext: &criapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}, Seccomp: &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func containerConfig(name, script string) *criapi.ContainerConfig {
	return &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name}, Image: &criapi.ImageSpec{Image: imageName}, Command: []string{"sh", "-c", script}, LogPath: name + ".log",
		Linux: &criapi.LinuxContainerConfig{
			Resources: &criapi.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 256 << 20},
			SecurityContext: &criapi.LinuxContainerSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}, Seccomp: &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

// pod is a running pod.
type pod struct {
	n      *node
	id     string
	config *criapi.PodSandboxConfig
}

func (n *node) runPod(config *criapi.PodSandboxConfig) *pod {
	n.t.Helper()
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		n.t.Fatal(err)
	}
	id := call(n, "RunPodSandbox", func(ctx context.Context, _ bool) (string, error) {
		r, err := n.rt.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		return r.GetPodSandboxId(), err
	})
	return &pod{n: n, id: id, config: config}
}

func (p *pod) create(config *criapi.ContainerConfig) *container {
	p.n.t.Helper()
	id := call(p.n, "CreateContainer "+config.Metadata.Name, func(ctx context.Context, _ bool) (string, error) {
		r, err := p.n.rt.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
		return r.GetContainerId(), err
	})
	return &container{n: p.n, id: id, log: filepath.Join(p.config.LogDirectory, config.LogPath)}
}

// run creates and starts.
func (p *pod) run(name, script string) *container {
	p.n.t.Helper()
	c := p.create(containerConfig(name, script))
	c.start()
	return c
}

func (p *pod) status() *criapi.PodSandboxStatus {
	p.n.t.Helper()
	return call(p.n, "PodSandboxStatus", func(ctx context.Context, _ bool) (*criapi.PodSandboxStatus, error) {
		r, err := p.n.rt.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: p.id})
		return r.GetStatus(), err
	})
}

func (p *pod) stop() {
	p.n.t.Helper()
	call(p.n, "StopPodSandbox", func(ctx context.Context, _ bool) (*criapi.StopPodSandboxResponse, error) {
		return p.n.rt.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: p.id})
	})
}

func (p *pod) remove() {
	p.n.t.Helper()
	call(p.n, "RemovePodSandbox", func(ctx context.Context, _ bool) (*criapi.RemovePodSandboxResponse, error) {
		return p.n.rt.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: p.id})
	})
}

// container is one that was created.
type container struct {
	n       *node
	id, log string
}

// start starts it. What a retry finds may have run already, and ended.
func (c *container) start() {
	c.n.t.Helper()
	call(c.n, "StartContainer", func(ctx context.Context, retry bool) (*criapi.StartContainerResponse, error) {
		r, err := c.n.rt.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: c.id})
		if err != nil && retry && status.Code(err) != codes.Unavailable && c.status().State == criapi.ContainerState_CONTAINER_EXITED {
			return &criapi.StartContainerResponse{}, nil
		}
		return r, err
	})
}

func (c *container) status() *criapi.ContainerStatus {
	c.n.t.Helper()
	return call(c.n, "ContainerStatus", func(ctx context.Context, _ bool) (*criapi.ContainerStatus, error) {
		r, err := c.n.rt.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: c.id})
		return r.GetStatus(), err
	})
}

func (c *container) stop(timeout int64) {
	c.n.t.Helper()
	call(c.n, "StopContainer", func(ctx context.Context, _ bool) (*criapi.StopContainerResponse, error) {
		return c.n.rt.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: c.id, Timeout: timeout})
	})
}

func (c *container) remove() {
	c.n.t.Helper()
	call(c.n, "RemoveContainer", func(ctx context.Context, _ bool) (*criapi.RemoveContainerResponse, error) {
		return c.n.rt.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: c.id})
	})
}

// update changes the limits. When the daemon has died over it, the next one must have all of it in force, or nothing,
// and say which.
func (c *container) update(r *criapi.LinuxContainerResources) {
	c.n.t.Helper()
	call(c.n, "UpdateContainerResources", func(ctx context.Context, retry bool) (*criapi.UpdateContainerResourcesResponse, error) {
		if retry {
			if st, err := c.n.rt.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: c.id}); err == nil {
				c.mustHave(st.Status.GetResources().GetLinux())
			}
		}
		return c.n.rt.UpdateContainerResources(ctx, &criapi.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: r})
	})
	if got := c.status().GetResources().GetLinux(); got.GetCpuShares() != r.CpuShares || got.GetMemoryLimitInBytes() != r.MemoryLimitInBytes {
		c.n.t.Errorf("after an update to %v the status says %v", r, got)
	}
	c.mustHave(r)
}

// mustHave looks into the container's cgroup.
func (c *container) mustHave(r *criapi.LinuxContainerResources) {
	c.n.t.Helper()
	weight := cgroups.ConvertCPUSharesToCgroupV2Value(uint64(r.GetCpuShares()))
	for file, want := range map[string]string{
		"cpu.shares": fmt.Sprint(r.GetCpuShares()), "cpu.weight": fmt.Sprint(weight), "memory.limit_in_bytes": fmt.Sprint(r.GetMemoryLimitInBytes()), "memory.max": fmt.Sprint(r.GetMemoryLimitInBytes()),
	} {
		for _, root := range hierarchies(c.n.t) {
			if b, err := os.ReadFile(filepath.Join(root, daemon.Group(c.n.cgroup, c.id), file)); err == nil && strings.TrimSpace(string(b)) != want {
				c.n.t.Errorf("%s is %s, and the status says %v", file, b, r)
			}
		}
	}
}

func (c *container) execRequest(timeout int64, script string) *criapi.ExecSyncRequest {
	return &criapi.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sh", "-c", script}, Timeout: timeout}
}

func (c *container) exec(timeout int64, script string) *criapi.ExecSyncResponse {
	c.n.t.Helper()
	return call(c.n, "ExecSync "+script, func(ctx context.Context, _ bool) (*criapi.ExecSyncResponse, error) {
		return c.n.rt.ExecSync(ctx, c.execRequest(timeout, script))
	})
}

func (c *container) reopen() {
	c.n.t.Helper()
	call(c.n, "ReopenContainerLog", func(ctx context.Context, _ bool) (*criapi.ReopenContainerLogResponse, error) {
		return c.n.rt.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: c.id})
	})
}

// mustExit waits for its end.
func (c *container) mustExit(code int32, reason string) {
	c.n.t.Helper()
	var st *criapi.ContainerStatus
	until(c.n.t, "container "+c.id+" still runs", func() bool {
		st = c.status()
		return st.State == criapi.ContainerState_CONTAINER_EXITED
	})
	if st.ExitCode != code || st.Reason != reason {
		c.n.t.Errorf("container %s ended with %d %s %q, want %d %s", st.Metadata.Name, st.ExitCode, st.Reason, st.Message, code, reason)
	}
}

func (c *container) mustRun() {
	c.n.t.Helper()
	if st := c.status(); st.State != criapi.ContainerState_CONTAINER_RUNNING {
		c.n.t.Errorf("container %s is %s (%d %s %q), want it running", st.Metadata.Name, st.State, st.ExitCode, st.Reason, st.Message)
	}
}

// entries reads a log: the lines of one stream, with the parts of split ones joined. A last part without its end comes
// with "…" behind it.
func entries(t testing.TB, path, stream string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	open := ""
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 || !strings.HasSuffix(line, "\n") || f[2] != "F" && f[2] != "P" {
			t.Errorf("%s: bad entry %q", path, line)
			continue
		}
		if f[1] != stream {
			continue
		}
		open += strings.TrimSuffix(f[3], "\r") // of a terminal
		if f[2] == "F" {
			lines = append(lines, open)
			open = ""
		}
	}
	if open != "" {
		lines = append(lines, open+"…")
	}
	return lines
}

// lines of standard output.
func (c *container) lines() []string {
	c.n.t.Helper()
	return entries(c.n.t, c.log, "stdout")
}

// says waits for a line of standard output.
func (c *container) says(line string) {
	c.n.t.Helper()
	until(c.n.t, fmt.Sprintf("no line %q in %s", line, c.log), func() bool {
		if _, err := os.Stat(c.log); err != nil {
			return false
		}
		for _, l := range c.lines() {
			if l == line {
				return true
			}
		}
		return false
	})
}

// mustList checks what is listed at all.
func (n *node) mustList(pods, containers int) {
	n.t.Helper()
	ps := call(n, "ListPodSandbox", func(ctx context.Context, _ bool) ([]*criapi.PodSandbox, error) {
		r, err := n.rt.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
		return r.GetItems(), err
	})
	cs := call(n, "ListContainers", func(ctx context.Context, _ bool) ([]*criapi.Container, error) {
		r, err := n.rt.ListContainers(ctx, &criapi.ListContainersRequest{})
		return r.GetContainers(), err
	})
	if len(ps) != pods || len(cs) != containers {
		n.t.Errorf("%d pods and %d containers are listed, want %d and %d\n%v\n%v", len(ps), len(cs), pods, containers, ps, cs)
	}
}
