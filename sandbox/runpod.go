package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/netns/nat"
	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/journal"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// RunPod makes a pod and returns its id. The same request again joins the call in progress, or gets the pod
// that it made.
func (m *Manager) RunPod(ctx context.Context, config *criapi.PodSandboxConfig, handler string) (string, error) {
	if config.GetMetadata() == nil {
		return "", fmt.Errorf("config.metadata: missing: %w", ErrInvalid)
	}
	if err := m.checkHandler(handler); err != nil {
		return "", err
	}
	key := metadataKey(config)
	return m.join(ctx, "pod "+key, func(ctx context.Context) (string, error) {
		if p := m.ready(key); p != nil {
			return p.ID, nil
		}
		return m.runPod(ctx, config, handler)
	})
}

// ready finds the pod that an earlier call with the same metadata made.
func (m *Manager) ready(key string) *Pod {
	for _, p := range m.allPods() {
		if metadataKey(p.Config) != key {
			continue
		}
		p.mu.Lock()
		ok := p.state == podReady
		p.mu.Unlock()
		if ok {
			return p
		}
	}
	return nil
}

func (m *Manager) runPod(ctx context.Context, config *criapi.PodSandboxConfig, handler string) (id string, err error) {
	if config.Linux == nil {
		config.Linux = &criapi.LinuxPodSandboxConfig{} // an update writes into it
	}
	p := &Pod{ID: newID(), Config: config, Handler: handler, Created: time.Now(), driver: m.cfg.Facts.CgroupDriver, state: podCreating, containers: map[string]*Container{}}
	p.dir = podDir(m.cfg.RunDir, p.ID)
	in := oci.PodInput{ID: p.ID, Config: config, RunDir: m.cfg.RunDir, Facts: m.cfg.Facts}
	if in.SeccompProfile, err = readProfile(oci.PodSeccompPath(config)); err != nil {
		return "", err
	}
	if p.spec, err = oci.Pod(in); err != nil {
		return "", invalid(err)
	}
	pl, err := compile.Pod(p.spec, m.options(p, p.ID))
	if err != nil {
		return "", invalid(fmt.Errorf("compile pod: %w", err))
	}
	if err := os.MkdirAll(p.dir, 0o711); err != nil {
		return "", fmt.Errorf("make pod directory: %w", err)
	}
	if p.journal, err = journal.Create(filepath.Join(p.dir, "journal"), p.ID); err != nil {
		_ = os.RemoveAll(p.dir)
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.rollBack(context.WithoutCancel(ctx), p))
		}
	}()
	m.takeLevel(p)
	if err := m.buildPod(ctx, p, pl); err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.setState(podReady); err != nil {
		return "", err
	}
	m.bury(p)
	m.mu.Lock()
	m.pods[p.ID] = p
	m.mu.Unlock()
	m.tell(p, p.ID, criapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	m.tell(p, p.ID, criapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return p.ID, nil
}

// rollBack undoes a pod that did not come up. One that could not be undone is listed as not ready, so that its removal can
// be asked for again.
func (m *Manager) rollBack(ctx context.Context, p *Pod) error {
	err := m.discard(ctx, p)
	if err == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = errors.Join(err, p.setState(podRemoving))
	p.state = podRemoving
	m.mu.Lock()
	m.pods[p.ID] = p
	m.mu.Unlock()
	m.tell(p, p.ID, criapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return err
}

// buildPod makes what the plan says, the network and the files that containers share.
func (m *Manager) buildPod(ctx context.Context, p *Pod, pl *plan.Plan) error {
	if err := p.setState(podCreating); err != nil {
		return err
	}
	if err := p.journal.Intend(plan.Object{Kind: plan.Dir, Name: p.dir}); err != nil {
		return err
	}
	if err := m.cfg.Engine.RunPod(ctx, p.ID, pl, p.journal); err != nil {
		return fmt.Errorf("run pod sandbox: %w", err)
	}
	if !p.hostNetwork() {
		if err := m.attach(ctx, p); err != nil {
			return err
		}
	}
	return m.writeFiles(p)
}

// attach connects the pod to its network. The record that a detach needs is in the journal first.
func (m *Manager) attach(ctx context.Context, p *Pod) error {
	md := p.Config.GetMetadata()
	dns := p.Config.GetDnsConfig()
	req := netns.Request{
		PodID: p.ID, Namespace: md.GetNamespace(), Name: md.GetName(), UID: md.GetUid(), NetnsPath: m.netnsPath(p),
		DNS: netns.DNS{Servers: dns.GetServers(), Searches: dns.GetSearches(), Options: dns.GetOptions()}, Annotations: p.Config.GetAnnotations(),
		Sysctls: p.Config.GetLinux().GetSysctls(), CgroupParent: p.Config.GetLinux().GetCgroupParent(),
	}
	for _, pm := range p.Config.GetPortMappings() {
		req.Ports = append(req.Ports, netns.PortMapping{Protocol: pm.GetProtocol().String(), ContainerPort: pm.GetContainerPort(), HostPort: pm.GetHostPort(), HostIP: pm.GetHostIp()})
	}
	att, err := m.cfg.Network.Prepare(req)
	if bad := (*netns.RequestError)(nil); errors.As(err, &bad) {
		return invalid(err)
	}
	if errors.Is(err, netns.ErrNoConfig) {
		return stateError{err}
	}
	if err != nil {
		return err
	}
	data, err := attachmentData(att)
	if err != nil {
		return err
	}
	if err := p.journal.Intend(plan.Object{Kind: plan.Attachment, Name: p.ID, Data: data}); err != nil {
		return err
	}
	p.att = att
	err = m.cfg.Network.Attach(ctx, att)
	if held := (*nat.ConflictError)(nil); errors.As(err, &held) {
		return stateError{err}
	}
	if errors.Is(err, netns.ErrFull) {
		return fullError{err}
	}
	return err
}

// writeFiles writes the files that the pod's containers bind: resolv.conf, hosts, hostname.
func (m *Manager) writeFiles(p *Pod) error {
	node, _ := os.Hostname()
	name, err := oci.Hostname(p.Config, node)
	if err != nil {
		return invalid(err)
	}
	var hosts []byte
	var ips []string
	if p.hostNetwork() {
		hosts, _ = os.ReadFile("/etc/hosts")
	} else {
		ips = p.att.IPs
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf") // a host without one gives its pods an empty one
	if resolv, err = oci.ResolvConf(p.Config, resolv); err != nil {
		return invalid(err)
	}
	for file, content := range map[string][]byte{"hosts": oci.HostsFile(name, ips, hosts), "hostname": oci.HostnameFile(name), "resolv.conf": resolv} {
		if err := os.WriteFile(filepath.Join(p.dir, file), content, 0o644); err != nil {
			return fmt.Errorf("write pod's %s: %w", file, err)
		}
	}
	return nil
}

// options are what every plan of this daemon has in common.
func (m *Manager) options(p *Pod, id string) compile.Options {
	return compile.Options{
		ID: id, Facts: m.facts(p), RunDir: m.cfg.RunDir, PrivateDir: filepath.Join(m.cfg.RunDir, "pods"), Stage: m.cfg.Engine.Stage(), Seccomp: m.cfg.Seccomp,
	}
}
