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
	own, err := cgroupPath(b.in.Pod, b.in.PodID, b.in.ID)
	if err != nil {
		return err
	}
	if b.spec.Linux.CgroupsPath = b.in.CgroupPath; b.in.CgroupPath == "" {
		b.spec.Linux.CgroupsPath = own
	}
	if p := b.in.CgroupPath; p != "" && !strings.Contains(p, ":") && (p[0] != '/' || path.Clean(p) != p) {
		return &InvalidError{Config: "container", Field: "cgroup path", Why: quote(p) + " is not absolute and clean"}
	}
	r := b.in.Config.GetLinux().GetResources()
	limits, err := Resources(r, b.in.Facts)
	if err != nil {
		return err
	}
	if limits != nil {
		limits.Devices = b.spec.Linux.Resources.Devices
		b.spec.Linux.Resources = limits
	}
	return b.setOOMScore(r.GetOomScoreAdj())
}

// setOOMScore always sets a score: the daemon's own, which would be inherited,
// may be lower than any container should have. Where the daemon may not go as
// low as asked (without CAP_SYS_RESOURCE nobody goes below their own), it goes
// as low as it may, and an annotation keeps what was asked.
func (b *builder) setOOMScore(want int64) error {
	if want < -1000 || want > 1000 {
		return badContainer(resourcesField+".oom_score_adj", "%d is not between -1000 and 1000", want)
	}
	score := int(want)
	if !b.in.Facts.CanLowerOOM && score < b.in.Facts.OOMScoreAdj {
		score = b.in.Facts.OOMScoreAdj
		b.spec.Annotations = map[string]string{AnnotationOOMScoreAdj: strconv.FormatInt(want, 10)}
	}
	b.spec.Process.OOMScoreAdj = &score
	return nil
}

// podResources adds up what the pod's containers may use together and what
// the pod itself costs.
func podResources(linux *criapi.LinuxPodSandboxConfig, facts host.Facts) (*specs.LinuxResources, error) {
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
