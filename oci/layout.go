package oci

import (
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/unit"
)

// DefaultRunDir is used where an input gives no RunDir.
const DefaultRunDir = "/run/cri-mini"

// maxCgroup bounds a cgroup_parent in bytes: what makes a path that the kernel does not take is said when the pod is run.
const maxCgroup = 2048

// cgroupRoot is the parent of pods that were given none, and rootSlice with the
// ending .slice is it for the systemd driver: a dash would begin a slice in it.
const (
	cgroupRoot = "/cri-mini"
	rootSlice  = "cri_mini"
)

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

// cgroupParent returns the cleaned cgroup_parent, "" when there is none: an
// absolute path within each hierarchy, or with the systemd driver the name of a
// slice. The kubelet gives a slice with the directories it is in.
func cgroupParent(pod *criapi.PodSandboxConfig, driver string) (string, error) {
	const field = "linux.cgroup_parent"
	parent := pod.GetLinux().GetCgroupParent()
	slice := path.Base(parent)
	switch {
	case parent == "":
		return "", nil
	case hasDotDot(parent):
		return "", badPod(field, `%q contains ".."`, parent)
	case strings.ContainsAny(parent, "\x00\n:"):
		return "", badPod(field, "%q holds ':', a newline or a NUL byte", parent)
	case len(parent) > maxCgroup:
		return "", badPod(field, "has %d bytes, at most %d leave room for what comes around it in a path", len(parent), maxCgroup)
	case driver != host.DriverSystemd && strings.HasSuffix(slice, ".slice"):
		return "", badPod(field, "%q is a slice of systemd, but the cgroup driver is cgroupfs: set cgroupDriver of the kubelet to cgroupfs, or runtime.cgroup_driver to systemd", parent)
	case driver != host.DriverSystemd:
		return path.Join("/", parent), nil
	}
	where, err := unit.SlicePath(slice)
	if err != nil {
		return "", badPod(field, "%q: %v, and the cgroup driver is systemd: set cgroupDriver of the kubelet to systemd, or runtime.cgroup_driver to cgroupfs", parent, err)
	}
	if where == "/" || strings.Contains(parent, "/") && path.Join("/", parent) != where {
		return "", badPod(field, "%q is not where systemd has that slice, which is %s", parent, where)
	}
	return slice, nil
}

// cgroupPath returns the cgroup of member id of a pod: below the pod's parent
// where the kubelet made one, else below a cgroup of the pod's own. With the
// systemd driver it is a slice, or a scope as slice:prefix:name.
func cgroupPath(pod *criapi.PodSandboxConfig, podID, id, driver string) (string, error) {
	parent, err := cgroupParent(pod, driver)
	if err != nil {
		return "", err
	}
	if driver == host.DriverSystemd {
		if parent == "" {
			parent = rootSlice + "-pod" + podID + ".slice"
			if id == podID {
				return parent, nil
			}
		}
		return parent + ":cri-mini:" + id, nil
	}
	if parent == "" {
		parent = path.Join(cgroupRoot, podID)
		if id == podID {
			return parent, nil
		}
	}
	return path.Join(parent, id), nil
}
