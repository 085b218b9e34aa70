package oci

import (
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

// setResources sets the container's cgroup, its limits and its OOM score,
// beside the device rules that are there already.
func (b *builder) setResources() error {
	own, err := cgroupPath(b.in.Pod, b.in.PodID, b.in.ID, b.in.Facts.CgroupDriver)
	if err != nil {
		return err
	}
	if b.spec.Linux.CgroupsPath = b.in.CgroupPath; b.in.CgroupPath == "" {
		b.spec.Linux.CgroupsPath = own
	}
	if p := b.in.CgroupPath; p != "" && !strings.Contains(p, ":") && (p[0] != '/' || path.Clean(p) != p) {
		return &InvalidError{Config: "container", Field: "cgroup path", Why: quote(p) + " is not absolute and clean"}
	}
	return Limit(b.spec, b.in.Config.GetLinux().GetResources(), b.in.Facts)
}

// Limit sets a container's limits and its OOM score, in place of those that the
// spec has; its device rules stay.
func Limit(s *specs.Spec, r *criapi.LinuxContainerResources, facts host.Facts) error {
	limits, err := Resources(r, facts)
	if err != nil {
		return err
	}
	if old := s.Linux.Resources; old != nil {
		if limits == nil {
			limits = &specs.LinuxResources{}
		}
		limits.Devices = old.Devices
	}
	s.Linux.Resources = limits
	return setOOMScore(s, r.GetOomScoreAdj(), facts)
}

// setOOMScore always sets a score: the daemon's own, which would be inherited,
// may be lower than any container should have. Where the daemon may not go as
// low as asked (without CAP_SYS_RESOURCE nobody goes below their own), it goes
// as low as it may, and an annotation keeps what was asked.
func setOOMScore(s *specs.Spec, want int64, facts host.Facts) error {
	if want < -1000 || want > 1000 {
		return badContainer(resourcesField+".oom_score_adj", "%d is not between -1000 and 1000", want)
	}
	score := int(want)
	delete(s.Annotations, AnnotationOOMScoreAdj)
	if !facts.CanLowerOOM && score < facts.OOMScoreAdj {
		score = facts.OOMScoreAdj
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[AnnotationOOMScoreAdj] = strconv.FormatInt(want, 10)
	}
	s.Process.OOMScoreAdj = &score
	return nil
}

// PodResources adds up what the pod's containers may use together and what
// the pod itself costs.
func PodResources(linux *criapi.LinuxPodSandboxConfig, facts host.Facts) (*specs.LinuxResources, error) {
	sum, err := resources(limits{linux.GetResources(), facts, podConfig, resourcesField})
	if err != nil {
		return nil, err
	}
	over, err := resources(limits{linux.GetOverhead(), facts, podConfig, "linux.overhead"})
	if err != nil || sum == nil || over == nil {
		return sum, err // overhead alone limits nothing
	}
	if sum.CPU != nil && over.CPU != nil {
		addTo(sum.CPU.Shares, over.CPU.Shares)
		addTo(sum.CPU.Quota, over.CPU.Quota)
	}
	if sum.Memory != nil && over.Memory != nil {
		addTo(sum.Memory.Limit, over.Memory.Limit)
		addTo(sum.Memory.Swap, over.Memory.Swap)
	}
	return sum, nil
}

// addTo adds v to a limit that is set and finite.
func addTo[T int64 | uint64](limit, v *T) {
	if limit != nil && v != nil && int64(*limit) > 0 && int64(*v) > 0 {
		*limit += *v
	}
}
