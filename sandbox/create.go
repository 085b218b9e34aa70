package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// CreateContainer makes a container's directories and its spec; no process yet. What is wrong with the request
// is said here. The same request again gives the container that was made.
func (m *Manager) CreateContainer(ctx context.Context, podID string, config *criapi.ContainerConfig, podConfig *criapi.PodSandboxConfig) (string, error) {
	p, err := m.pod(podID)
	if err != nil {
		return "", err
	}
	if config.GetMetadata().GetName() == "" {
		return "", fmt.Errorf("config.metadata.name: missing: %w", ErrInvalid)
	}
	key, err := creationKey(p.ID, config)
	if err != nil {
		return "", err
	}
	return m.join(ctx, key, func(ctx context.Context) (string, error) {
		if c := m.existing(p, config); c != nil {
			return c.ID, nil
		}
		return m.create(ctx, p, config, podConfig)
	})
}

// existing finds the container that an earlier call with the same config made and that was not started yet.
func (m *Manager) existing(p *Pod, config *criapi.ContainerConfig) *Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		if c.state == ctrCreated && containerKey(p.ID, c.Config) == containerKey(p.ID, config) && proto.Equal(c.Config, config) {
			return c
		}
	}
	return nil
}

func (m *Manager) create(ctx context.Context, p *Pod, config *criapi.ContainerConfig, podConfig *criapi.PodSandboxConfig) (id string, err error) {
	c := &Container{ID: newID(), Config: config, pod: p, state: ctrCreating, created: time.Now(), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.returnVolumes(c))
		}
	}()
	if c.Log, err = oci.LogPath(p.Config, config); err != nil {
		return "", invalid(err)
	}
	if config.GetImage().GetImage() == "" {
		return "", fmt.Errorf("config.image.image: is empty: %w", ErrInvalid)
	}
	img, ok := m.cfg.Images.Resolve(config.GetImage().GetImage())
	if !ok {
		return "", fmt.Errorf("config.image.image: %q: %w on this node; pull it first", config.GetImage().GetImage(), ErrNotFound)
	}
	c.Image = imageRecord{ID: img.ID, Ref: img.Ref}
	if c.spec, err = m.makeSpec(ctx, c, img, podConfig); err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != podReady {
		return "", fmt.Errorf("pod sandbox %s is not ready: %w", p.ID, ErrState)
	}
	if err := m.build(p, c); err != nil {
		return "", errors.Join(err, m.undoContainer(context.WithoutCancel(ctx), p, c.ID))
	}
	p.containers[c.ID] = c
	m.mu.Lock()
	m.ctrs[c.ID] = c
	m.mu.Unlock()
	m.tell(p, c.ID, criapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return c.ID, nil
}

// build makes what a created container has. Caller holds the pod's mutex.
func (m *Manager) build(p *Pod, c *Container) error {
	if err := c.setState(ctrCreating); err != nil {
		return err
	}
	objects := []plan.Object{{Kind: plan.Dir, Name: c.dir(), Owner: c.ID}, {Kind: plan.Dir, Name: m.layer(c.ID), Owner: c.ID}}
	for _, id := range c.images() {
		objects = append(objects, plan.Object{Kind: plan.Lend, Name: id, Owner: c.ID})
	}
	for _, o := range objects {
		if err := p.journal.Intend(o); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.dir(), 0o711); err != nil {
		return fmt.Errorf("make container directory: %w", err)
	}
	if err := m.makeLayer(c); err != nil {
		return err
	}
	// The plan is made once now, for what is wrong with the spec to be said here.
	if _, err := m.plan(c); err != nil {
		return err
	}
	if err := c.saveSpec(); err != nil {
		return err
	}
	return c.setState(ctrCreated)
}

// makeLayer makes the upper and work directories. The upper one becomes the container's /: it gets the mode and owner
// that the image gives its root, as the container's user namespace maps them.
func (m *Manager) makeLayer(c *Container) error {
	lower, err := m.cfg.Images.Lend(c.Image.ID, c.ID, "")
	if err != nil {
		return err
	}
	mode, uid, gid := uint32(0o755), uint32(0), uint32(0)
	if len(lower) > 0 {
		var st unix.Stat_t
		if err := unix.Stat(lower[0], &st); err != nil {
			return fmt.Errorf("make writable layer: stat layer: %w", err)
		}
		mode, uid, gid = st.Mode&0o7777, st.Uid, st.Gid
	}
	if l := c.spec.Linux; l != nil {
		uid, gid = mapped(uid, l.UIDMappings), mapped(gid, l.GIDMappings)
	}
	for _, name := range []string{"upper", "work"} {
		dir := filepath.Join(m.layer(c.ID), name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make writable layer: %w", err)
		}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return fmt.Errorf("make writable layer: %w", err)
		}
		if err := unix.Chmod(dir, mode); err != nil { // after chown, which clears setgid
			return fmt.Errorf("make writable layer: set mode: %w", err)
		}
	}
	return nil
}

// mapped gives the host's id for one of the container's.
func mapped(id uint32, mappings []specs.LinuxIDMapping) uint32 {
	for _, e := range mappings {
		if id >= e.ContainerID && id-e.ContainerID < e.Size {
			return e.HostID + id - e.ContainerID
		}
	}
	return id
}

// plan compiles the container's start.
func (m *Manager) plan(c *Container) (*plan.Plan, error) {
	lower, err := m.cfg.Images.Lend(c.Image.ID, c.ID, "")
	if err != nil {
		return nil, err
	}
	if err := m.makeSkeleton(); err != nil {
		return nil, err
	}
	o := m.options(c.pod, c.ID)
	o.Bundle = c.dir()
	o.Rootfs = compile.Rootfs{Lower: append(lower, m.skeleton()), Upper: filepath.Join(m.layer(c.ID), "upper"), Work: filepath.Join(m.layer(c.ID), "work")}
	o.Stdio = compile.Stdio{Dir: c.dir(), Stdin: c.Config.GetStdin(), StdinOnce: c.Config.GetStdinOnce()}
	pl, err := compile.Container(c.spec, o)
	if err != nil {
		return nil, invalid(fmt.Errorf("compile container: %w", err)) // a seccomp profile, say, that oci cannot judge
	}
	return pl, nil
}

// undoContainer undoes everything that belongs to a container and forgets its note. Caller holds the pod's mutex.
func (m *Manager) undoContainer(ctx context.Context, p *Pod, id string) error {
	ctx, cancel := context.WithTimeout(ctx, undoLimit)
	defer cancel()
	if p.journal == nil {
		return nil
	}
	if err := p.journal.Undo(ctx, id, func(ctx context.Context, o plan.Object) error { return m.releaseObject(ctx, p, o) }); err != nil {
		return err
	}
	err := p.journal.Note(noteContainer, id, nil)
	if errors.Is(err, ErrFull) {
		return nil // the next daemon finds a container that has nothing, and removes it when it is asked to
	}
	return err
}

// RemoveContainer removes a container, killing it first if it runs. Unknown is success.
func (m *Manager) RemoveContainer(ctx context.Context, id string) error {
	c, err := m.container(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = m.join(ctx, "rm "+c.ID, func(ctx context.Context) (string, error) { return c.ID, m.remove(ctx, c) })
	return err
}

func (m *Manager) remove(ctx context.Context, c *Container) error {
	p := c.pod
	if err := settle(ctx, c); err != nil {
		return err
	}
	p.mu.Lock()
	running := c.state == ctrRunning
	p.mu.Unlock()
	if running {
		if err := m.killAll(ctx, []*Container{c}); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone { // and the container with its pod, whose journal is closed
		return nil
	}
	if c.state == ctrRunning || c.state == ctrStarting {
		return fmt.Errorf("container %s was started meanwhile: %w", c.ID, ErrState)
	}
	if err := c.setRemoving(); err != nil {
		return err
	}
	if err := m.undoContainer(context.WithoutCancel(ctx), p, c.ID); err != nil {
		return fmt.Errorf("remove container %s: %w", c.ID, err)
	}
	m.cfg.Engine.Ack(c.ID)
	delete(p.containers, c.ID)
	m.mu.Lock()
	delete(m.ctrs, c.ID)
	m.mu.Unlock()
	m.layers.forget(m.upper(c.ID))
	m.bury(p)
	m.tell(p, c.ID, criapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// awaitKilled waits until the end of a killed container is recorded. One that does not die in time is named
// with where it hangs.
func (m *Manager) awaitKilled(ctx context.Context, c *Container) error {
	limit := time.NewTimer(engine.KillLimit)
	defer limit.Stop()
	prod := time.AfterFunc(time.Second, func() { m.cfg.Engine.Prod(ctx, c.ID) })
	defer prod.Stop()
	for {
		select {
		case <-c.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("container %s does not die: %s", c.ID, m.whyAlive(c))
		case <-time.After(time.Second):
			_ = m.cfg.Engine.Signal(c.ID, unix.SIGKILL)
			_ = m.cfg.Cgroups.ThawAll(c.cgroup()) // on v1 a frozen task does not die
		}
	}
}

// whyAlive names the tasks that SIGKILL does not end.
func (m *Manager) whyAlive(c *Container) string {
	pids, err := m.cfg.Cgroups.Procs(c.cgroup())
	if err != nil || len(pids) == 0 {
		return "no task is left in its cgroup, but its init was not reaped"
	}
	why := ""
	for _, pid := range pids {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		wchan, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
		why += fmt.Sprintf("task %d (%s) waits in %s; ", pid, trimNewline(comm), wchan)
	}
	return why
}

func trimNewline(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b)
}
