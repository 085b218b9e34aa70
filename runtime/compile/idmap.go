package compile

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// idmap gives the user namespace whose maps a mount takes (runtime-spec, config.md, idmap): of the mount's own
// mappings, or else of the container's. The container's namespace itself serves where it is there before the mounts
// are; for any other mapping, and for a namespace that init is yet to make, one is made that nobody lives in.
func (b *builder) idmap(m *mount, spec specs.Mount) (plan.Slot, error) {
	uids, gids := spec.UIDMappings, spec.GIDMappings
	own, joined := b.ns.slot[plan.NewUser]
	switch {
	case !m.bind && m.layers == nil || m.remount:
		return plan.NoSlot, bad(m.field+".uidMappings", "are for bind mounts and for overlays without an upper directory only")
	case b.unprivileged():
		return plan.NoSlot, bad(m.field+".uidMappings", "idmapped mounts take privileges over the file system, which a rootless runtime lacks")
	case !b.o.Facts.IdmapMounts:
		return plan.NoSlot, bad(m.field+".uidMappings", "this kernel has no idmapped mounts")
	case len(uids) == 0 && len(gids) == 0 && joined:
		return own, nil
	case len(uids) == 0 && len(gids) == 0:
		uids, gids = b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings
	}
	for _, list := range []struct {
		name string
		maps []specs.LinuxIDMapping
	}{{".uidMappings", uids}, {".gidMappings", gids}} {
		if len(list.maps) == 0 {
			return plan.NoSlot, bad(m.field+list.name, "are missing: a mount has mappings of both, or those of the container's user namespace")
		}
		if err := checkRanges(m.field+list.name, list.maps); err != nil {
			return plan.NoSlot, err
		}
	}
	if joined && sameMapping(uids, b.spec.Linux.UIDMappings) && sameMapping(gids, b.spec.Linux.GIDMappings) {
		return own, nil
	}
	return b.mapOf(uids, gids), nil
}

// mapOf makes the namespace of two maps, once.
func (b *builder) mapOf(uids, gids []specs.LinuxIDMapping) plan.Slot {
	u, g := mapText(uids), mapText(gids)
	if slot, ok := b.maps[u+"/"+g]; ok {
		return slot
	}
	slot := b.p.NewSlot("map")
	b.maps[u+"/"+g] = slot
	b.before(plan.MakeMap(slot, u, g))
	return slot
}
