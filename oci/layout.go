package oci

import (
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DefaultRunDir is used where an input gives no RunDir.
const DefaultRunDir = "/run/cri-mini"

// maxCgroup bounds a cgroup_parent in bytes: what makes a path that the kernel does not take is said when the pod is run.
const maxCgroup = 2048

// cgroupRoot is the parent of pods that were given none.
const cgroupRoot = "/cri-mini"

func quote(s string) string { return strconv.Quote(s) }

func runDirOr(dir string) string {
	if dir == "" {
		return DefaultRunDir
	}
	return dir
}

// podFile is a file that all containers of a pod share.
func podFile(runDir, podID, name string) string {
	return path.Join(runDir, "pods", podID, name)
}

// namespacePath is where a pod's namespace is pinned. The network namespace is
// the one that CNI plugins must see, so it alone is not in the daemon's private
// mount namespace.
func namespacePath(runDir, podID string, t specs.LinuxNamespaceType) string {
	if t == specs.NetworkNamespace {
		return path.Join(runDir, "netns", podID)
	}
	return path.Join(runDir, "pods", podID, "ns", string(t))
}

// cgroupParent returns the cleaned cgroup_parent, "" when there is none. With
// the systemd driver it is a slice ("kubepods-burstable.slice"), which stays as
// it is; a cgroupfs path is made absolute within each hierarchy.
func cgroupParent(pod *criapi.PodSandboxConfig) (string, error) {
	parent := pod.GetLinux().GetCgroupParent()
	switch {
	case parent == "":
		return "", nil
	case hasDotDot(parent):
		return "", badPod("linux.cgroup_parent", `%q contains ".."`, parent)
	case strings.ContainsAny(parent, "\x00\n:"):
		return "", badPod("linux.cgroup_parent", "%q holds ':', a newline or a NUL byte", parent)
	case len(parent) > maxCgroup:
		return "", badPod("linux.cgroup_parent", "has %d bytes, at most %d leave room for what comes around it in a path", len(parent), maxCgroup)
	}
	return path.Join("/", parent), nil
}

// cgroupPath returns the cgroup of member id of a pod: below the pod's parent
// where the kubelet made one, else below a cgroup of the pod's own. A slice
// gives the form that the systemd driver takes, slice:prefix:name.
func cgroupPath(pod *criapi.PodSandboxConfig, podID, id string) (string, error) {
	parent, err := cgroupParent(pod)
	switch {
	case err != nil:
		return "", err
	case parent == "" && id == podID:
		return path.Join(cgroupRoot, podID), nil
	case parent == "":
		return path.Join(cgroupRoot, podID, id), nil
	case strings.HasSuffix(parent, ".slice"):
		return path.Base(parent) + ":cri-mini:" + id, nil
	}
	return path.Join(parent, id), nil
}
