package oci

import (
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// restricting are the mount_options that can be asked for. All of them take
// something away; "dev", "suid" or "exec" could undo what the node's
// administrator set on the source.
var restricting = []string{
	"noexec", "nodev", "nosuid", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow",
}

// volumes turns the config's mounts into binds, and says how the root must
// propagate for the most open of them.
func (b *builder) volumes() (list []specs.Mount, propagation string, err error) {
	propagation = "rprivate"
	for i, m := range b.in.Config.GetMounts() {
		field := indexed("mounts", i)
		if err := b.checkVolume(field, m); err != nil {
			return nil, "", err
		}
		if m.GetImage().GetImage() != "" {
			v, err := b.imageVolume(i, m)
			if err != nil {
				return nil, "", err
			}
			list = append(list, v)
			continue
		}
		options, mode, err := b.volumeOptions(field, m)
		if err != nil {
			return nil, "", err
		}
		if mode == "rshared" || mode == "rslave" && propagation == "rprivate" {
			propagation = mode
		}
		list = append(list, specs.Mount{
			Destination: path.Clean(m.GetContainerPath()), Type: "bind", Source: path.Clean(m.GetHostPath()),
			Options: options, UIDMappings: idMappings(m.GetUidMappings()), GIDMappings: idMappings(m.GetGidMappings()),
		})
	}
	return list, propagation, nil
}

func (b *builder) checkVolume(field string, m *criapi.Mount) error {
	if why := checkAbs(m.GetContainerPath()); why != "" {
		return badContainer(field+".container_path", "%s", why)
	}
	if path.Clean(m.GetContainerPath()) == "/" {
		return badContainer(field+".container_path", "the root cannot be mounted over")
	}
	if m.GetImage().GetImage() != "" {
		return b.checkVolumeMappings(field, m)
	}
	if m.GetImageSubPath() != "" {
		return badContainer(field+".image_sub_path", "is set without image")
	}
	if why := checkAbs(m.GetHostPath()); why != "" {
		return badContainer(field+".host_path", "%s", why)
	}
	return b.checkVolumeMappings(field, m)
}

// checkVolumeMappings wants the volume mapped as its pod is, or not at all:
// another mapping would show files under ids that their owner never had.
func (b *builder) checkVolumeMappings(field string, m *criapi.Mount) error {
	uids, gids := idMappings(m.GetUidMappings()), idMappings(m.GetGidMappings())
	switch {
	case len(uids) == 0 && len(gids) == 0:
		return nil
	case !b.userns():
		return badContainer(field+".uidMappings", "the pod has no user namespace")
	case !b.in.Facts.IdmapMounts:
		return badContainer(field+".uidMappings", "this kernel has no idmapped mounts")
	case !slices.Equal(uids, b.in.PodSpec.Linux.UIDMappings):
		return badContainer(field+".uidMappings", "differ from the pod's uids")
	case !slices.Equal(gids, b.in.PodSpec.Linux.GIDMappings):
		return badContainer(field+".gidMappings", "differ from the pod's gids")
	}
	return nil
}

func (b *builder) volumeOptions(field string, m *criapi.Mount) (options []string, propagation string, err error) {
	if propagation, err = b.propagation(field, m); err != nil {
		return nil, "", err
	}
	access, err := b.volumeAccess(field, m)
	if err != nil {
		return nil, "", err
	}
	more, err := mountOptions(field, m)
	options = []string{"rbind", propagation}
	if access != "" {
		options = append(options, access)
	}
	return append(append(options, more...), mapOptions(m)...), propagation, err
}

// mapOptions: what is mounted below a volume keeps its ids. Not every file system can be mapped, and one that cannot,
// somewhere below a directory of the node, would keep the container from starting.
func mapOptions(m *criapi.Mount) []string {
	if len(m.GetUidMappings()) == 0 && len(m.GetGidMappings()) == 0 {
		return nil
	}
	return []string{"idmap"}
}

func mountOptions(field string, m *criapi.Mount) (options []string, err error) {
	for i, o := range m.GetMountOptions() {
		if !slices.Contains(restricting, o) {
			return nil, badContainer(indexed(field+".mount_options", i), "%q is none of %q", o, restricting)
		}
		if !slices.Contains(options, o) {
			options = append(options, o)
		}
	}
	return options, nil
}

func (b *builder) propagation(field string, m *criapi.Mount) (string, error) {
	field += ".propagation"
	switch m.GetPropagation() {
	case criapi.MountPropagation_PROPAGATION_PRIVATE:
		return "rprivate", nil
	case criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		return "rslave", nil
	case criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		// The mounts of a less privileged user namespace never propagate to
		// a more privileged one (mount_namespaces(7)).
		if b.userns() {
			return "", badContainer(field, "PROPAGATION_BIDIRECTIONAL is not possible in a user namespace")
		}
		return "rshared", nil
	}
	return "", badContainer(field, "unknown propagation %d", int32(m.GetPropagation()))
}

// volumeAccess is "" for a volume that may be written: "rw" would let the container write what the node has mounted
// read-only, and in a user namespace, where that cannot be had, keep it from starting.
func (b *builder) volumeAccess(field string, m *criapi.Mount) (string, error) {
	field += ".recursive_read_only"
	switch {
	case !m.GetRecursiveReadOnly() && m.GetReadonly():
		return "ro", nil
	case !m.GetRecursiveReadOnly():
		return "", nil
	case !m.GetReadonly():
		return "", badContainer(field, "needs readonly too")
	case m.GetPropagation() != criapi.MountPropagation_PROPAGATION_PRIVATE:
		return "", badContainer(field, "needs PROPAGATION_PRIVATE, not %s: a later mount would come in writable", m.GetPropagation())
	case !b.in.Facts.RecursiveReadonly:
		return "", &InvalidError{
			Config: containerConfig, Field: field, Why: "needs mount_setattr(2) of Linux 5.12", Name: crierrors.ErrRROUnsupported.Error(),
		}
	}
	return "rro", nil
}
