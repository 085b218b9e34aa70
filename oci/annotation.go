package oci

import (
	"maps"
	"strconv"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Annotations of a spec that tools read to find out what a container is. The
// names are those that other CRI runtimes use.
const (
	AnnotationType         = "io.kubernetes.cri.container-type" // "sandbox" or "container"
	AnnotationPodID        = "io.kubernetes.cri.sandbox-id"
	AnnotationPodName      = "io.kubernetes.cri.sandbox-name"
	AnnotationPodNamespace = "io.kubernetes.cri.sandbox-namespace"
	AnnotationPodUID       = "io.kubernetes.cri.sandbox-uid"
	AnnotationLogDirectory = "io.kubernetes.cri.sandbox-log-directory"
	AnnotationName         = "io.kubernetes.cri.container-name"
	AnnotationImage        = "io.kubernetes.cri.image-name"
	AnnotationCPUPeriod    = "io.kubernetes.cri.sandbox-cpu-period"
	AnnotationCPUQuota     = "io.kubernetes.cri.sandbox-cpu-quota"
	AnnotationCPUShares    = "io.kubernetes.cri.sandbox-cpu-shares"
	AnnotationMemory       = "io.kubernetes.cri.sandbox-memory"
)

// ownAnnotations begins the keys that this runtime sets for itself; users
// cannot set them.
const ownAnnotations = "io.cri-mini."

// AnnotationOOMScoreAdj holds the oom_score_adj that was asked for, when the
// daemon could not go that low and the spec has a higher one.
const AnnotationOOMScoreAdj = ownAnnotations + "oom-score-adj-requested"

// userAnnotations merges the annotations of configs, the later ones winning.
func userAnnotations(configs ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, c := range configs {
		maps.Copy(out, c)
	}
	maps.DeleteFunc(out, func(k, _ string) bool { return strings.HasPrefix(k, ownAnnotations) })
	return out
}

func setPodKeys(a map[string]string, podID string, m *criapi.PodSandboxMetadata) {
	a[AnnotationPodID] = podID
	a[AnnotationPodName] = m.GetName()
	a[AnnotationPodNamespace] = m.GetNamespace()
	a[AnnotationPodUID] = m.GetUid()
}

func podAnnotations(in PodInput) (map[string]string, error) {
	if _, empty := in.Config.GetAnnotations()[""]; empty {
		return nil, badPod("annotations", "has an empty key")
	}
	a := userAnnotations(in.Config.GetAnnotations())
	setPodKeys(a, in.ID, in.Config.GetMetadata())
	a[AnnotationType] = "sandbox"
	if dir := in.Config.GetLogDirectory(); dir != "" {
		a[AnnotationLogDirectory] = dir
	}
	r := in.Config.GetLinux().GetResources()
	for key, v := range map[string]int64{
		AnnotationCPUPeriod: r.GetCpuPeriod(), AnnotationCPUQuota: r.GetCpuQuota(),
		AnnotationCPUShares: r.GetCpuShares(), AnnotationMemory: r.GetMemoryLimitInBytes(),
	} {
		if v != 0 {
			a[key] = strconv.FormatInt(v, 10)
		}
	}
	return a, nil
}

func (b *builder) annotations() (map[string]string, error) {
	c := b.in.Config
	if _, empty := c.GetAnnotations()[""]; empty {
		return nil, badContainer("annotations", "has an empty key")
	}
	a := userAnnotations(b.in.Pod.GetAnnotations(), c.GetAnnotations())
	setPodKeys(a, b.in.PodID, b.in.Pod.GetMetadata())
	a[AnnotationType] = "container"
	a[AnnotationName] = c.GetMetadata().GetName()
	if a[AnnotationImage] = b.in.ImageName; b.in.ImageName == "" {
		a[AnnotationImage] = c.GetImage().GetImage()
	}
	return a, nil
}

// indexed is the path of element i of a repeated field.
func indexed(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
