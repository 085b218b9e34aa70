package sandbox

import (
	"encoding/json"
	"sort"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/oci"
)

func (s podState) cri() criapi.PodSandboxState {
	if s == podReady {
		return criapi.PodSandboxState_SANDBOX_READY
	}
	return criapi.PodSandboxState_SANDBOX_NOTREADY
}

func (s ctrState) cri() criapi.ContainerState {
	switch s {
	case ctrCreating, ctrCreated, ctrStarting:
		return criapi.ContainerState_CONTAINER_CREATED
	case ctrRunning:
		return criapi.ContainerState_CONTAINER_RUNNING
	case ctrExited, ctrRemoving:
		return criapi.ContainerState_CONTAINER_EXITED
	}
	return criapi.ContainerState_CONTAINER_UNKNOWN
}

// PodStatus tells all about a pod; with verbose also its spec and network record.
func (m *Manager) PodStatus(id string, verbose bool) (*criapi.PodSandboxStatus, map[string]string, error) {
	p, err := m.pod(id)
	if err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.status()
	if !verbose {
		return st, nil, nil
	}
	info, err := infoMap(map[string]any{"id": p.ID, "runtimeSpec": p.spec, "config": p.Config, "network": p.att, "journal": p.dir})
	return st, info, err
}

// status shares with the pod what never changes. Caller holds mu.
func (p *Pod) status() *criapi.PodSandboxStatus {
	ns := p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if ns == nil {
		ns = &criapi.NamespaceOption{}
	}
	st := &criapi.PodSandboxStatus{
		Id: p.ID, Metadata: p.Config.GetMetadata(), State: p.state.cri(), CreatedAt: p.Created.UnixNano(), Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations(),
		RuntimeHandler: p.Handler, Network: &criapi.PodSandboxNetworkStatus{}, Linux: &criapi.LinuxPodSandboxStatus{Namespaces: &criapi.Namespace{Options: ns}},
	}
	if p.att != nil && p.state == podReady {
		for i, ip := range p.att.IPs {
			if i == 0 {
				st.Network.Ip = ip
				continue
			}
			st.Network.AdditionalIps = append(st.Network.AdditionalIps, &criapi.PodIP{Ip: ip})
		}
	}
	return st
}

func infoMap(v map[string]any) (map[string]string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return map[string]string{"info": string(b)}, nil
}

// ListPods lists the pods that a filter matches, newest first.
func (m *Manager) ListPods(f *criapi.PodSandboxFilter) []*criapi.PodSandbox {
	out := []*criapi.PodSandbox{}
	for _, p := range m.allPods() {
		p.mu.Lock()
		state := p.state
		p.mu.Unlock()
		if !hasPrefix(p.ID, f.GetId()) || f.GetState() != nil && f.GetState().GetState() != state.cri() || !selects(f.GetLabelSelector(), p.Config.GetLabels()) {
			continue
		}
		out = append(out, &criapi.PodSandbox{
			Id: p.ID, Metadata: p.Config.GetMetadata(), State: state.cri(), CreatedAt: p.Created.UnixNano(), Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations(), RuntimeHandler: p.Handler,
		})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].CreatedAt > out[j].CreatedAt })
	return out
}

func (m *Manager) allPods() []*Pod {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]*Pod, 0, len(m.pods))
	for _, p := range m.pods {
		out = append(out, p)
	}
	return out
}

func (m *Manager) allContainers() []*Container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]*Container, 0, len(m.ctrs))
	for _, c := range m.ctrs {
		out = append(out, c)
	}
	return out
}

// hasPrefix: an empty filter matches, a full id or a prefix of one selects.
func hasPrefix(id, filter string) bool {
	return len(filter) <= len(id) && id[:len(filter)] == filter
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// ContainerStatus tells all about a container; with verbose also its pid and spec.
func (m *Manager) ContainerStatus(id string, verbose bool) (*criapi.ContainerStatus, map[string]string, error) {
	c, err := m.container(id)
	if err != nil {
		return nil, nil, err
	}
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	st := m.containerStatus(c)
	if !verbose {
		return st, nil, nil
	}
	pid, _ := m.cfg.Engine.PID(c.ID)
	info, err := infoMap(map[string]any{"sandboxID": c.pod.ID, "pid": pid, "runtimeSpec": c.spec, "config": c.Config, "monitorStreams": c.dir()})
	return st, info, err
}

// containerStatus shares with the container what never changes. Caller holds the pod's mutex.
func (m *Manager) containerStatus(c *Container) *criapi.ContainerStatus {
	st := &criapi.ContainerStatus{
		Id: c.ID, Metadata: c.Config.GetMetadata(), State: c.state.cri(), CreatedAt: nanos(c.created), StartedAt: nanos(c.started), FinishedAt: nanos(c.finished),
		ExitCode: int32(c.exitCode), Image: c.Config.GetImage(), ImageRef: c.Image.Ref, ImageId: c.Image.ID, Reason: c.reason, Message: c.message,
		Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(), Mounts: c.mounts(), LogPath: c.Log, StopSignal: c.Config.GetStopSignal(),
	}
	if st.StopSignal == 0 {
		st.StopSignal = criapi.Signal(criapi.Signal_value["SIGNAL_"+signalName(m.stopSignal(c))])
	}
	if c.spec != nil {
		st.User = oci.User(c.spec)
	}
	if r := c.Config.GetLinux().GetResources(); r != nil {
		st.Resources = &criapi.ContainerResources{Linux: r} // an update replaces it
	}
	return st
}

// ListContainers lists the containers that a filter matches, newest first.
func (m *Manager) ListContainers(f *criapi.ContainerFilter) []*criapi.Container {
	out := []*criapi.Container{}
	for _, c := range m.allContainers() {
		c.pod.mu.Lock()
		state := c.state
		c.pod.mu.Unlock()
		if !hasPrefix(c.ID, f.GetId()) || !hasPrefix(c.pod.ID, f.GetPodSandboxId()) || f.GetState() != nil && f.GetState().GetState() != state.cri() || !selects(f.GetLabelSelector(), c.Config.GetLabels()) {
			continue
		}
		out = append(out, &criapi.Container{
			Id: c.ID, PodSandboxId: c.pod.ID, Metadata: c.Config.GetMetadata(), Image: c.Config.GetImage(), ImageRef: c.Image.Ref, ImageId: c.Image.ID,
			State: state.cri(), CreatedAt: nanos(c.created), Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(),
		})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].CreatedAt > out[j].CreatedAt })
	return out
}

// signalName is "SIGTERM" for 15.
func signalName(sig unix.Signal) string { return unix.SignalName(sig) }
