package oci

import (
	"cmp"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// selinux returns the labels of the process and of its mounts, empty on a node
// without SELinux, for a privileged container, and where neither the container
// nor its pod asks for one. Parts that are not given are what container
// policies call a confined container.
func (b *builder) selinux() (process, mount string) {
	o := b.sc.GetSelinuxOptions()
	if !b.in.Facts.SELinux || b.privileged {
		return "", ""
	}
	if o == nil {
		o = b.in.Pod.GetLinux().GetSecurityContext().GetSelinuxOptions()
	}
	if o == nil {
		return "", ""
	}
	user, level := cmp.Or(o.GetUser(), "system_u"), cmp.Or(o.GetLevel(), "s0")
	process = user + ":" + cmp.Or(o.GetRole(), "system_r") + ":" + cmp.Or(o.GetType(), "container_t") + ":" + level
	return process, user + ":object_r:container_file_t:" + level
}

// RelabelPaths returns the host paths that the kubelet wants relabelled with
// the container's mount label before it starts (selinux_relabel).
func RelabelPaths(c *criapi.ContainerConfig) []string {
	var paths []string
	for _, m := range c.GetMounts() {
		if m.GetSelinuxRelabel() && m.GetHostPath() != "" {
			paths = append(paths, m.GetHostPath())
		}
	}
	return paths
}
