package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The names of what is timed, in the order of a pod's life.
const (
	callRun             = "RunPodSandbox"
	callCreate          = "CreateContainer"
	callStart           = "StartContainer"
	callReady           = "ready = these three"
	callLog             = "first log line after StartContainer"
	callExec            = "ExecSync true"
	callStop            = "StopContainer"
	callRemoveContainer = "RemoveContainer"
	callStopPod         = "StopPodSandbox"
	callRemovePod       = "RemovePodSandbox"
)

const label = "cri-mini-bench"

// patience is for one pod's way up, or down, or one exec: a runtime that hangs is
// an error and not a slow one.
const patience = 30 * time.Second

// client is a connection to a runtime and the choices that all pods share.
type client struct {
	options
	conn    *grpc.ClientConn
	runtime criapi.RuntimeServiceClient
	images  criapi.ImageServiceClient
	version string
	logs    string // directory for the pods' logs
	run     string // tells this run's pods from others
	made    atomic.Int64
}

func connect(ctx context.Context, o options) (*client, error) {
	conn, err := grpc.NewClient(o.endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.endpoint, err)
	}
	c := &client{
		options: o, conn: conn, run: fmt.Sprint(os.Getpid()),
		runtime: criapi.NewRuntimeServiceClient(conn), images: criapi.NewImageServiceClient(conn),
	}
	v, err := c.runtime.Version(ctx, &criapi.VersionRequest{}, grpc.WaitForReady(true))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask %s for its version: %w", o.endpoint, err)
	}
	c.version = v.RuntimeName + " " + v.RuntimeVersion
	if c.logs, err = os.MkdirTemp("", "cri-mini-bench-"); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// close removes what the run has left, with a context of its own: the first may
// be over.
func (c *client) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := c.runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{
		Filter: &criapi.PodSandboxFilter{LabelSelector: map[string]string{label: c.run}},
	})
	if err == nil {
		for _, p := range list.Items {
			_ = c.down(ctx, newResult(""), &pod{id: p.Id}) // as much as goes
		}
	}
	c.conn.Close()
	os.RemoveAll(c.logs)
}

func (c *client) needImage(ctx context.Context) error {
	spec := &criapi.ImageSpec{Image: c.image}
	status, err := c.images.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: spec})
	if err != nil {
		return fmt.Errorf("look for image %s: %w", c.image, err)
	}
	if status.Image != nil {
		return nil
	}
	if _, err := c.images.PullImage(ctx, &criapi.PullImageRequest{Image: spec}); err != nil {
		return fmt.Errorf("pull image %s: %w", c.image, err)
	}
	return nil
}

// pod is one that is up, with its container if it has one.
type pod struct {
	id        string
	container string
	config    *criapi.PodSandboxConfig
	log       string
}

// podConfig has a name, and so a log, that no pod of this run had before: the log
// is how up knows that the container is ready.
func (c *client) podConfig() *criapi.PodSandboxConfig {
	name := fmt.Sprintf("bench-%s-%d", c.run, c.made.Add(1))
	config := &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: name, Uid: name, Namespace: "bench"},
		Hostname:     name,
		LogDirectory: filepath.Join(c.logs, name),
		Labels:       map[string]string{label: c.run},
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: c.cgroup + "/pod" + name,
			SecurityContext: &criapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
				Seccomp:          &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	if c.hostNet {
		config.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	}
	return config
}

// command says a line when its SIGTERM handler is in place: PID 1 of a namespace
// loses a signal that it does not handle (pid_namespaces(7)).
var command = []string{"sh", "-c", `trap 'exit 0' TERM; echo ready; while :; do sleep 3600 & wait; done`}

func (c *client) containerConfig() *criapi.ContainerConfig {
	return &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: "main"},
		Image:    &criapi.ImageSpec{Image: c.image},
		Command:  command,
		LogPath:  "main.log",
		Linux: &criapi.LinuxContainerConfig{
			Resources: &criapi.LinuxContainerResources{
				CpuPeriod: 100000, CpuQuota: 100000, CpuShares: 512, MemoryLimitInBytes: 64 << 20,
			},
			SecurityContext: &criapi.LinuxContainerSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
				Seccomp:          &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
				NoNewPrivs:       true,
			},
		},
	}
}

// timed runs one call and records how long it took.
func timed(r *result, name string, f func() error) error {
	began := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.add(name, time.Since(began))
	return nil
}

// up makes a pod with a running container.
func (c *client) up(ctx context.Context, r *result) (*pod, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p := &pod{config: c.podConfig()}
	p.log = filepath.Join(p.config.LogDirectory, "main.log")
	if err := os.MkdirAll(p.config.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	began := time.Now()
	err := timed(r, callRun, func() error {
		resp, err := c.runtime.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: p.config, RuntimeHandler: c.handler})
		p.id = resp.GetPodSandboxId()
		return err
	})
	if err != nil {
		return nil, err
	}
	err = timed(r, callCreate, func() error {
		resp, err := c.runtime.CreateContainer(ctx, &criapi.CreateContainerRequest{
			PodSandboxId: p.id, Config: c.containerConfig(), SandboxConfig: p.config,
		})
		p.container = resp.GetContainerId()
		return err
	})
	if err != nil {
		return nil, err
	}
	err = timed(r, callStart, func() error {
		_, err := c.runtime.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: p.container})
		return err
	})
	if err != nil {
		return nil, err
	}
	r.add(callReady, time.Since(began))
	return p, timed(r, callLog, func() error { return waitForLog(ctx, p.log) })
}

// waitForLog waits until the container has said its line.
func waitForLog(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no line in %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// down takes a pod away, container first if it is known.
func (c *client) down(ctx context.Context, r *result, p *pod) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	steps := []struct {
		name string
		f    func() error
	}{
		{callStop, func() error {
			_, err := c.runtime.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: p.container, Timeout: 10})
			return err
		}},
		{callRemoveContainer, func() error {
			_, err := c.runtime.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: p.container})
			return err
		}},
		{callStopPod, func() error {
			_, err := c.runtime.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: p.id})
			return err
		}},
		{callRemovePod, func() error {
			_, err := c.runtime.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: p.id})
			return err
		}},
	}
	if p.container == "" {
		steps = steps[2:]
	}
	for _, s := range steps {
		if err := timed(r, s.name, s.f); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) exec(ctx context.Context, r *result, p *pod) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return timed(r, callExec, func() error {
		resp, err := c.runtime.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: p.container, Cmd: []string{"true"}, Timeout: 10})
		if err == nil && resp.ExitCode != 0 {
			err = fmt.Errorf("exit code %d: %s", resp.ExitCode, resp.Stderr)
		}
		return err
	})
}
