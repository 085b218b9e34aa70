package sandbox

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/oci"
)

// UpdateContainer changes the limits of a container that was created or runs. Fields that are zero keep what
// they were. Either all of it is in force afterwards, or what was before.
func (m *Manager) UpdateContainer(_ context.Context, id string, r *criapi.LinuxContainerResources, annotations map[string]string) error {
	c, err := m.container(id)
	if err != nil {
		return err
	}
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	if c.state != ctrRunning && c.state != ctrCreated {
		return fmt.Errorf("update container %s: it is %s: %w", c.ID, c.state, ErrState)
	}
	merged := &criapi.LinuxContainerResources{}
	if old := c.Config.GetLinux().GetResources(); old != nil {
		merged = proto.Clone(old).(*criapi.LinuxContainerResources)
	}
	proto.Merge(merged, r)
	if r.GetHugepageLimits() != nil {
		merged.HugepageLimits = r.GetHugepageLimits() // Merge appends lists
	}
	res, err := oci.Resources(merged, m.cfg.Facts)
	if err != nil {
		return invalid(err)
	}
	if c.state == ctrRunning {
		if err := m.cfg.Cgroups.Update(c.cgroup(), res); err != nil {
			return fmt.Errorf("update container %s: %w", short(c.ID), err)
		}
	}
	return c.keepResources(merged, res, annotations)
}

// keepResources takes limits over into config and spec, so that status and a later start have them.
func (c *Container) keepResources(r *criapi.LinuxContainerResources, res *specs.LinuxResources, annotations map[string]string) error {
	if c.Config.Linux == nil {
		c.Config.Linux = &criapi.LinuxContainerConfig{}
	}
	c.Config.Linux.Resources = r
	for k, v := range annotations {
		if c.Config.Annotations == nil {
			c.Config.Annotations = map[string]string{}
		}
		c.Config.Annotations[k] = v
	}
	if old := c.spec.Linux.Resources; old != nil {
		res.Devices = old.Devices
	}
	c.spec.Linux.Resources = res
	return errors.Join(c.saveSpec(), c.note())
}
