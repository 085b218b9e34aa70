package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

// pending is in a container's note while an update is under way: what the kernel held before it. A restart that finds
// it takes the update back, whose caller never got an answer.
type pending struct {
	Files []cgroup.Former `json:"files,omitempty"`
	// Score is the oom_score_adj that the update gives to processes.
	Score int `json:"score"`
}

// UpdateContainer changes the limits of a container that was created or runs. Fields that are zero keep what
// they were; a limit on memory without one on swap allows no swap, as at creation. Either all of it is in force
// afterwards, in the kernel and in the status, or what was before.
func (m *Manager) UpdateContainer(id string, r *criapi.LinuxContainerResources) error {
	c, err := m.container(id)
	if err != nil {
		return err
	}
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	if c.state != ctrRunning && c.state != ctrCreated {
		return fmt.Errorf("update container %s: it is %s: %w", c.ID, c.state, ErrState)
	}
	if c.pod.state != podReady {
		return fmt.Errorf("update container %s: pod sandbox %s is not ready: %w", c.ID, c.pod.ID, ErrState)
	}
	if c.spec == nil {
		return fmt.Errorf("update container %s: its spec was lost: %w", c.ID, ErrState)
	}
	if _, err := oci.Resources(r, m.cfg.Facts); err != nil { // names the fields as the caller counts them
		return invalid(err)
	}
	merged := mergeResources(c.Config.GetLinux().GetResources(), r)
	next := withOwnLimits(c.spec)
	if err := oci.Limit(next, merged, m.cfg.Facts); err != nil {
		return invalid(err)
	}
	if err := m.update(c, merged, next); err != nil {
		return fmt.Errorf("update container %s: %w", short(c.ID), err)
	}
	return nil
}

// update notes what would have to be undone, does it, and notes the result. Caller holds the pod's mutex.
func (m *Manager) update(c *Container, r *criapi.LinuxContainerResources, next *specs.Spec) error {
	running := c.state == ctrRunning
	c.updating = &pending{Score: *next.Process.OOMScoreAdj}
	if running {
		var err error
		if c.updating.Files, err = m.cfg.Cgroups.Former(c.cgroup(), next.Linux.Resources); err != nil {
			c.updating = nil
			return err
		}
	}
	if err := c.note(); err != nil {
		c.updating = nil
		return err
	}
	before, spec := c.Config.GetLinux().GetResources(), c.spec
	var err error
	if running {
		err = m.enforce(c, next)
	}
	if err == nil {
		c.setLimits(r, next)
		err = c.saveSpec()
	}
	update := c.updating
	if err == nil {
		c.updating = nil
		if err = c.note(); err == nil {
			m.bury(c.pod)
			return nil
		}
	}
	c.setLimits(before, spec)
	c.updating = update
	return errors.Join(err, m.takeBack(c))
}

// enforce gives a running container new limits. A limit on memory below what is in use is refused: cgroup v2 would
// kill to get there.
func (m *Manager) enforce(c *Container, next *specs.Spec) error {
	var res specs.LinuxResources
	if next.Linux.Resources != nil {
		res = *next.Linux.Resources
	}
	res.Devices = nil // are not changed
	if res.Memory != nil {
		memory := *res.Memory
		memory.CheckBeforeUpdate = new(true)
		res.Memory = &memory
	}
	if err := m.cfg.Cgroups.Update(c.cgroup(), &res); err != nil {
		return err
	}
	return m.rescore(c, score(c.spec), score(next))
}

// takeBack makes the kernel, the spec and the note what they were before an update that failed or was cut short.
func (m *Manager) takeBack(c *Container) error {
	errs := []error{m.cfg.Cgroups.TakeBack(c.updating.Files)}
	if c.state == ctrRunning {
		errs = append(errs, m.rescore(c, c.updating.Score, score(c.spec)))
	}
	c.updating = nil
	return errors.Join(append(errs, c.saveSpec(), c.note())...)
}

// recoverUpdate takes back an update in whose middle the daemon before has died. The spec on disk may be of before
// or after it; the config is of before.
func (m *Manager) recoverUpdate(c *Container) error {
	if c.updating == nil || c.spec == nil {
		return nil
	}
	if err := oci.Limit(c.spec, c.Config.GetLinux().GetResources(), m.cfg.Facts); err != nil {
		return err
	}
	return m.takeBack(c)
}

func (c *Container) setLimits(r *criapi.LinuxContainerResources, spec *specs.Spec) {
	if c.Config.Linux == nil {
		c.Config.Linux = &criapi.LinuxContainerConfig{}
	}
	c.Config.Linux.Resources, c.spec = r, spec
}

// withOwnLimits copies a spec as far as an update writes to it.
func withOwnLimits(s *specs.Spec) *specs.Spec {
	next, linux, process := *s, *s.Linux, *s.Process
	next.Linux, next.Process, next.Annotations = &linux, &process, maps.Clone(s.Annotations)
	return &next
}

func score(s *specs.Spec) int {
	if s.Process.OOMScoreAdj == nil {
		return 0
	}
	return *s.Process.OOMScoreAdj
}

// mergeResources puts what an update says over what was. Limits on huge pages are kept apart by their size.
func mergeResources(old, r *criapi.LinuxContainerResources) *criapi.LinuxContainerResources {
	merged := &criapi.LinuxContainerResources{}
	if old != nil {
		merged = proto.Clone(old).(*criapi.LinuxContainerResources)
	}
	if r.GetMemoryLimitInBytes() != 0 {
		merged.MemorySwapLimitInBytes = 0 // Merge brings the new one, if there is one
	}
	merged.HugepageLimits = slices.DeleteFunc(merged.HugepageLimits, func(have *criapi.HugepageLimit) bool {
		return slices.ContainsFunc(r.GetHugepageLimits(), func(h *criapi.HugepageLimit) bool { return h.GetPageSize() == have.GetPageSize() })
	})
	proto.Merge(merged, r)
	return merged
}
