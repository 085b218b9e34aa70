package oci

import (
	"cmp"
	"path"
	"regexp"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const selinuxField = scField + "selinux_options"

var (
	selinuxName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
	// A sensitivity or a range of two, each with categories: s0, s0:c4,c5,
	// s0-s0:c0.c1023.
	selinuxLevel = regexp.MustCompile(`^s\d+(:c\d+([.,]c\d+)*)?(-s\d+(:c\d+([.,]c\d+)*)?)?$`)
)

// selinux returns the labels of the process and of its mounts, empty on a node
// without SELinux, and on one whose policy knows no containers (it gives pods no
// level) unless somebody asks for a label. What the container's options leave out is the pod's, and
// after that what container policies call a confined container, with categories
// that no other pod has. A privileged process gets no label of ours: the policy
// says what becomes of the daemon's children; its files are the pod's all the
// same.
func (b *builder) selinux() (process, mount string, err error) {
	if !b.in.Facts.SELinux {
		return "", "", nil
	}
	o, config := b.sc.GetSelinuxOptions(), containerConfig
	if o == nil {
		o, config = b.in.Pod.GetLinux().GetSecurityContext().GetSelinuxOptions(), podConfig
	}
	if err := checkSELinux(config, o); err != nil || o == nil && b.in.SELinuxLevel == "" {
		return "", "", err
	}
	podLevel := b.in.Pod.GetLinux().GetSecurityContext().GetSelinuxOptions().GetLevel()
	user, level := cmp.Or(o.GetUser(), "system_u"), cmp.Or(o.GetLevel(), podLevel, b.in.SELinuxLevel, "s0")
	mount = user + ":object_r:container_file_t:" + level
	if b.privileged {
		return "", mount, nil
	}
	return user + ":" + cmp.Or(o.GetRole(), "system_r") + ":" + cmp.Or(o.GetType(), "container_t") + ":" + level, mount, nil
}

// checkSELinux wants each part to be one part: the kernel splits a label at its
// colons.
func checkSELinux(config string, o *criapi.SELinuxOption) error {
	for _, part := range []struct{ name, value string }{{"user", o.GetUser()}, {"role", o.GetRole()}, {"type", o.GetType()}} {
		if part.value != "" && !selinuxName.MatchString(part.value) {
			return &InvalidError{Config: config, Field: selinuxField + "." + part.name, Why: quote(part.value) + " is not a name"}
		}
	}
	if l := o.GetLevel(); l != "" && !selinuxLevel.MatchString(l) {
		return &InvalidError{Config: config, Field: selinuxField + ".level", Why: quote(l) + ` is not a level such as "s0:c4,c5"`}
	}
	return nil
}

// RelabelPaths returns the host paths that the kubelet wants relabelled with
// the container's mount label before it starts (selinux_relabel), cleaned:
// the library that does it refuses directories of the system by their names.
func RelabelPaths(c *criapi.ContainerConfig) []string {
	var paths []string
	for _, m := range c.GetMounts() {
		if m.GetSelinuxRelabel() && m.GetHostPath() != "" {
			paths = append(paths, path.Clean(m.GetHostPath()))
		}
	}
	return paths
}
