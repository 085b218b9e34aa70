package oci

import (
	"math"

	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const usernsField = nsField + ".userns_options"

// podMappings checks the user namespace options and returns the pod's
// mappings, none when it lives in the node's user namespace.
func podMappings(u *criapi.UserNamespace) (uids, gids []specs.LinuxIDMapping, err error) {
	switch u.GetMode() {
	case criapi.NamespaceMode_NODE:
		if len(u.GetUids()) != 0 || len(u.GetGids()) != 0 {
			return nil, nil, badPod(usernsField, "mode NODE takes no uids and gids")
		}
		return nil, nil, nil
	case criapi.NamespaceMode_POD:
		// A kubelet that does not know user namespaces leaves the message out.
		if u == nil {
			return nil, nil, nil
		}
	case criapi.NamespaceMode_CONTAINER, criapi.NamespaceMode_TARGET:
		return nil, nil, badPod(usernsField+".mode", "%s is not possible; use POD or NODE", u.GetMode())
	default:
		return nil, nil, badPod(usernsField+".mode", "unknown mode %d", int32(u.GetMode()))
	}
	if uids, err = podMapping("uids", u.GetUids()); err != nil {
		return nil, nil, err
	}
	if gids, err = podMapping("gids", u.GetGids()); err != nil {
		return nil, nil, err
	}
	return uids, gids, nil
}

// podMapping wants exactly one range that starts at 0: root must exist, or
// nothing in the container could be set up, and one range is what idmapped
// layers and volumes of the same pod are made with.
func podMapping(name string, maps []*criapi.IDMapping) ([]specs.LinuxIDMapping, error) {
	field := usernsField + "." + name
	if len(maps) != 1 {
		return nil, badPod(field, "has %d mappings; exactly one is needed", len(maps))
	}
	if maps[0].GetContainerId() != 0 {
		return nil, badPod(field+"[0].container_id", "%d leaves container id 0 unmapped; it must be 0", maps[0].GetContainerId())
	}
	if why := checkMapping(maps[0]); why != "" {
		return nil, badPod(field+"[0]", "%s", why)
	}
	return idMappings(maps), nil
}

// checkMapping returns what is wrong with one range, or "". The id 2^32-1 means
// "none" to the kernel and cannot be mapped.
func checkMapping(m *criapi.IDMapping) string {
	switch {
	case m.GetLength() == 0:
		return "length is 0"
	case uint64(m.GetHostId())+uint64(m.GetLength()) > math.MaxUint32,
		uint64(m.GetContainerId())+uint64(m.GetLength()) > math.MaxUint32:
		return "the range goes beyond id 4294967294"
	}
	return ""
}

func idMappings(maps []*criapi.IDMapping) []specs.LinuxIDMapping {
	var list []specs.LinuxIDMapping
	for _, m := range maps {
		list = append(list, specs.LinuxIDMapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()})
	}
	return list
}

// checkUserns wants a container to say of the user namespace what its pod
// says, or nothing.
func (b *builder) checkUserns(u *criapi.UserNamespace) error {
	if u == nil {
		return nil
	}
	want := b.in.Pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if _, ok := criapi.NamespaceMode_name[int32(u.GetMode())]; !ok {
		return badContainer(usernsField+".mode", "unknown mode %d", int32(u.GetMode()))
	}
	podsMode := criapi.NamespaceMode_NODE // what leaving it out comes to
	if want != nil {
		podsMode = want.GetMode()
	}
	if u.GetMode() != podsMode {
		return badContainer(usernsField+".mode", "%s, but the pod was run with %s", u.GetMode(), podsMode)
	}
	if !slices.Equal(idMappings(u.GetUids()), idMappings(want.GetUids())) {
		return badContainer(usernsField+".uids", "differ from the pod's")
	}
	if !slices.Equal(idMappings(u.GetGids()), idMappings(want.GetGids())) {
		return badContainer(usernsField+".gids", "differ from the pod's")
	}
	return nil
}

// userns says whether the container lives in a user namespace of its pod's.
func (b *builder) userns() bool { return b.podHas(specs.UserNamespace) }

func (b *builder) uidMapped(id uint32) bool {
	return !b.userns() || mapped(b.in.PodSpec.Linux.UIDMappings, id)
}

func (b *builder) gidMapped(id uint32) bool {
	return !b.userns() || mapped(b.in.PodSpec.Linux.GIDMappings, id)
}

func mapped(maps []specs.LinuxIDMapping, id uint32) bool {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return true
		}
	}
	return false
}
