package api

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podConfig is what kubelet would send for a pod of this name.
func podConfig(name string, mods ...func(*criapi.PodSandboxConfig)) *criapi.PodSandboxConfig {
	c := &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "api"}, Hostname: name, LogDirectory: filepath.Join(shared.logs, name),
		Labels: map[string]string{"name": name},
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: parent,
			SecurityContext: &criapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}, Seccomp: &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	for _, mod := range mods {
		mod(c)
	}
	return c
}

func containerConfig(name, script string, mods ...func(*criapi.ContainerConfig)) *criapi.ContainerConfig {
	c := &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name}, Image: &criapi.ImageSpec{Image: imageName}, Command: []string{"sh", "-c", script}, LogPath: name + ".log",
		Linux: &criapi.LinuxContainerConfig{
			Resources: &criapi.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 256 << 20},
			SecurityContext: &criapi.LinuxContainerSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}, Seccomp: &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	for _, mod := range mods {
		mod(c)
	}
	return c
}

// idle makes a container one process that sleeps, with nothing that changes by itself.
func idle(c *criapi.ContainerConfig) { c.Command = []string{"sleep", "1000"} }

// pod is a pod that was run.
type pod struct {
	n      *node
	id     string
	config *criapi.PodSandboxConfig
}

func (n *node) runPod(name string, mods ...func(*criapi.PodSandboxConfig)) *pod {
	n.t.Helper()
	config := podConfig(name, mods...)
	r, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		n.t.Fatalf("RunPodSandbox: %v", err)
	}
	return &pod{n: n, id: r.PodSandboxId, config: config}
}

func (p *pod) status() *criapi.PodSandboxStatus {
	p.n.t.Helper()
	r, err := p.n.Runtime.PodSandboxStatus(p.n.ctx(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		p.n.t.Fatalf("PodSandboxStatus: %v", err)
	}
	return r.Status
}

// container is one that was created.
type container struct {
	n       *node
	id, log string
}

func (p *pod) tryCreate(config *criapi.ContainerConfig) (*container, error) {
	r, err := p.n.Runtime.CreateContainer(p.n.ctx(), &criapi.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		return nil, err
	}
	return &container{n: p.n, id: r.ContainerId, log: filepath.Join(p.config.LogDirectory, config.LogPath)}, nil
}

func (p *pod) create(name, script string, mods ...func(*criapi.ContainerConfig)) *container {
	p.n.t.Helper()
	c, err := p.tryCreate(containerConfig(name, script, mods...))
	if err != nil {
		p.n.t.Fatalf("CreateContainer %s: %v", name, err)
	}
	return c
}

// run creates and starts.
func (p *pod) run(name, script string, mods ...func(*criapi.ContainerConfig)) *container {
	p.n.t.Helper()
	c := p.create(name, script, mods...)
	if err := c.start(); err != nil {
		p.n.t.Fatalf("StartContainer %s: %v", name, err)
	}
	return c
}

func (c *container) start() error {
	_, err := c.n.Runtime.StartContainer(c.n.ctx(), &criapi.StartContainerRequest{ContainerId: c.id})
	return err
}

func (c *container) stop(timeout int64) {
	c.n.t.Helper()
	if _, err := c.n.Runtime.StopContainer(c.n.ctx(), &criapi.StopContainerRequest{ContainerId: c.id, Timeout: timeout}); err != nil {
		c.n.t.Errorf("StopContainer: %v", err)
	}
}

func (c *container) remove() {
	c.n.t.Helper()
	if _, err := c.n.Runtime.RemoveContainer(c.n.ctx(), &criapi.RemoveContainerRequest{ContainerId: c.id}); err != nil {
		c.n.t.Errorf("RemoveContainer: %v", err)
	}
}

func (c *container) status() *criapi.ContainerStatus {
	c.n.t.Helper()
	r, err := c.n.Runtime.ContainerStatus(c.n.ctx(), &criapi.ContainerStatusRequest{ContainerId: c.id})
	if err != nil {
		c.n.t.Fatalf("ContainerStatus: %v", err)
	}
	return r.Status
}

func (c *container) tryExec(timeout int64, script string) (*criapi.ExecSyncResponse, error) {
	return c.n.Runtime.ExecSync(c.n.ctx(), &criapi.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sh", "-c", script}, Timeout: timeout})
}

// exec gives the standard output of what must succeed.
func (c *container) exec(script string) string {
	c.n.t.Helper()
	r, err := c.tryExec(20, script)
	if err != nil || r.ExitCode != 0 {
		c.n.t.Fatalf("ExecSync %s: %d %q %v", script, r.GetExitCode(), r.GetStderr(), err)
	}
	return strings.TrimSpace(string(r.Stdout))
}

// ends waits for the end, and gives the first status that tells of it.
func (c *container) ends() *criapi.ContainerStatus {
	c.n.t.Helper()
	var st *criapi.ContainerStatus
	until(c.n.t, "the container still runs", func() bool {
		st = c.status()
		return st.State == criapi.ContainerState_CONTAINER_EXITED
	})
	return st
}

// mustEnd wants one end.
func (c *container) mustEnd(code int32, reason string) {
	c.n.t.Helper()
	if st := c.ends(); st.ExitCode != code || st.Reason != reason {
		c.n.t.Errorf("container %s ended with %d %s %q, want %d %s", st.Metadata.Name, st.ExitCode, st.Reason, st.Message, code, reason)
	}
}

// entry is one line of a log file.
type entry struct{ stream, tag, text string }

// entries reads a log file; each line must be one of kubelet's.
func entries(t testing.TB, path string) []entry {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []entry
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 || !strings.HasSuffix(line, "\n") || f[2] != "F" && f[2] != "P" || f[1] != "stdout" && f[1] != "stderr" {
			t.Errorf("%s: bad line %.100q", path, line)
			continue
		}
		if _, err := time.Parse(time.RFC3339Nano, f[0]); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		list = append(list, entry{f[1], f[2], f[3]})
	}
	return list
}

// says waits for a line of standard output.
func (c *container) says(text string) {
	c.n.t.Helper()
	until(c.n.t, fmt.Sprintf("no line %q in %s", text, c.log), func() bool {
		b, _ := os.ReadFile(c.log)
		return strings.Contains(string(b), " stdout F "+text+"\n")
	})
}

// until waits for a condition, at most 10 s.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("after 10 s: %s", what)
		}
	}
}

// mustFail wants an error of a code that says all of these.
func mustFail(t testing.TB, err error, code codes.Code, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %s with %q", code, says)
		return
	}
	if status.Code(err) != code {
		t.Errorf("code %s, want %s: %v", status.Code(err), code, err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
	if strings.Contains(err.Error(), "failed to") {
		t.Errorf("error %q has our forbidden words in it", err)
	}
	t.Logf("%v", err)
}

// mustList checks how many pods and containers are listed.
func (n *node) mustList(pods, containers int) {
	n.t.Helper()
	ps, err := n.Runtime.ListPodSandbox(n.ctx(), &criapi.ListPodSandboxRequest{})
	if err != nil || len(ps.Items) != pods {
		n.t.Errorf("%d pods are listed, want %d: %v", len(ps.GetItems()), pods, err)
	}
	cs, err := n.Runtime.ListContainers(n.ctx(), &criapi.ListContainersRequest{})
	if err != nil || len(cs.Containers) != containers {
		n.t.Errorf("%d containers are listed, want %d: %v", len(cs.GetContainers()), containers, err)
	}
}
