package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// UpdatePod takes over what the pod as a whole may use: the sum of its containers, and the overhead beside it. What
// is nil stays. Where the kubelet made the pod's cgroup it has set its limits already; a cgroup of our own gets them
// here. Either all of it is in force afterwards, or what was before.
func (m *Manager) UpdatePod(ctx context.Context, id string, overhead, resources *criapi.LinuxContainerResources) error {
	p, err := m.pod(id)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != podReady {
		return fmt.Errorf("update pod sandbox %s: it is not ready: %w", p.ID, ErrState)
	}
	next := &criapi.LinuxPodSandboxConfig{Overhead: p.Config.GetLinux().GetOverhead(), Resources: p.Config.GetLinux().GetResources()}
	if overhead != nil {
		next.Overhead = proto.Clone(overhead).(*criapi.LinuxContainerResources)
	}
	if resources != nil {
		next.Resources = proto.Clone(resources).(*criapi.LinuxContainerResources)
	}
	if err := m.updatePod(ctx, p, next); err != nil {
		return fmt.Errorf("update pod sandbox %s: %w", short(p.ID), err)
	}
	return nil
}

// updatePod writes down what would have to be undone first, as update does. Caller holds mu.
func (m *Manager) updatePod(ctx context.Context, p *Pod, next *criapi.LinuxPodSandboxConfig) error {
	sum, err := oci.PodResources(next, m.cfg.Facts)
	if err != nil {
		return invalid(err)
	}
	linux := p.Config.GetLinux()
	own := linux.GetCgroupParent() == "" && sum != nil
	if own {
		if err := m.makePodCgroup(ctx, p); err != nil {
			return err
		}
		if p.updating, err = m.cfg.Cgroups.Former(p.spec.Linux.CgroupsPath, sum); err != nil {
			return err
		}
		if err := p.setState(p.state); err != nil {
			p.updating = nil
			return err
		}
		err = m.cfg.Cgroups.Update(p.spec.Linux.CgroupsPath, sum)
	}
	former, overhead, resources := p.updating, linux.Overhead, linux.Resources
	p.updating = nil
	if err == nil {
		linux.Overhead, linux.Resources = next.Overhead, next.Resources
		if err = p.setState(p.state); err == nil {
			if own {
				p.spec.Linux.Resources = sum
			}
			m.bury(p)
			return nil
		}
	}
	linux.Overhead, linux.Resources = overhead, resources
	return errors.Join(err, m.cfg.Cgroups.TakeBack(former), p.setState(p.state))
}

// makePodCgroup makes the pod's own cgroup where it was run without limits and so without one.
func (m *Manager) makePodCgroup(ctx context.Context, p *Pod) error {
	o := plan.Object{Kind: plan.Cgroup, Name: p.spec.Linux.CgroupsPath}
	if slices.ContainsFunc(p.journal.Live(""), func(l plan.Object) bool { return l.Kind == o.Kind && l.Name == o.Name }) {
		return nil
	}
	if err := p.journal.Intend(o); err != nil {
		return err
	}
	return m.cfg.Cgroups.Create(ctx, o.Name, nil)
}

// recoverPodUpdate takes back an update in whose middle the daemon before has died.
func (m *Manager) recoverPodUpdate(p *Pod) error {
	if p.updating == nil {
		return nil
	}
	former := p.updating
	p.updating = nil
	return errors.Join(m.cfg.Cgroups.TakeBack(former), p.setState(p.state))
}
