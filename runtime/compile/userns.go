package compile

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// maxMaps is how many lines the kernel takes in a map (user_namespaces(7)).
const maxMaps = 340

func (b *builder) checkMappings() error {
	uids, gids := b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings
	if !b.ns.has(plan.NewUser) {
		if len(uids) > 0 || len(gids) > 0 {
			return bad("linux.uidMappings", "mean nothing without a user namespace")
		}
		return nil
	}
	if err := checkMapping("linux.uidMappings", uids, b.ns.fresh&plan.NewUser != 0); err != nil {
		return err
	}
	return checkMapping("linux.gidMappings", gids, b.ns.fresh&plan.NewUser != 0)
}

// checkMapping wants id 0 mapped where maps are given: init sets the container up as its root.
func checkMapping(field string, maps []specs.LinuxIDMapping, needed bool) error {
	if len(maps) == 0 && needed {
		return bad(field, "are missing: a new user namespace needs them")
	}
	if err := checkRanges(field, maps); err != nil {
		return err
	}
	if _, ok := hostID(maps, 0); !ok {
		return bad(field, "leave id 0 of the container unmapped")
	}
	return nil
}

// checkRanges checks what the kernel wants of every map.
func checkRanges(field string, maps []specs.LinuxIDMapping) error {
	if len(maps) > maxMaps {
		return bad(field, "are %d, the kernel takes %d", len(maps), maxMaps)
	}
	for i, m := range maps {
		if m.Size == 0 {
			return bad(at(field, i, "size"), "is 0")
		}
		if uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			return bad(at(field, i, "size"), "the range ends beyond id 4294967294")
		}
		for j, o := range maps[:i] {
			if overlap(m.ContainerID, o.ContainerID, m.Size, o.Size) || overlap(m.HostID, o.HostID, m.Size, o.Size) {
				return bad(at(field, i, ""), "overlaps with range %d", j)
			}
		}
	}
	return nil
}

// overlap: do m ids from a and n ids from b have one in common.
func overlap(a, b, m, n uint32) bool {
	return uint64(a) < uint64(b)+uint64(n) && uint64(b) < uint64(a)+uint64(m)
}

// hostID translates an id of the container. Without maps it is the host's.
func hostID(maps []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return id, len(maps) == 0
}

// noID is "leave it as it is" to setresuid(2), so a process with it would stay root.
const noID = 1<<32 - 1

// checkUser wants the process's ids to be ids, and to exist in its user namespace.
func (b *builder) checkUser() error {
	u := b.proc.User
	switch {
	case u.UID == noID:
		return bad("process.user.uid", "%d is not an id", u.UID)
	case u.GID == noID:
		return bad("process.user.gid", "%d is not an id", u.GID)
	case slices.Contains(u.AdditionalGids, noID):
		return bad("process.user.additionalGids", "%d is not an id", uint32(noID))
	case b.deniesGroups() && len(u.AdditionalGids) > 0:
		return bad("process.user.additionalGids", "cannot set any additional groups in a rootless container: its linux.gidMappings are one id")
	}
	if _, ok := hostID(b.spec.Linux.UIDMappings, u.UID); !ok {
		return bad("process.user.uid", "%d is not in linux.uidMappings", u.UID)
	}
	if _, ok := hostID(b.spec.Linux.GIDMappings, u.GID); !ok {
		return bad("process.user.gid", "%d is not in linux.gidMappings", u.GID)
	}
	for i, g := range u.AdditionalGids {
		if _, ok := hostID(b.spec.Linux.GIDMappings, g); !ok {
			return bad(at("process.user.additionalGids", i, ""), "%d is not in linux.gidMappings", g)
		}
	}
	if u.Umask != nil && *u.Umask > 0o777 {
		return bad("process.user.umask", "%#o is more than 0777", *u.Umask)
	}
	return nil
}

// mapText is the form of /proc/PID/uid_map.
func mapText(maps []specs.LinuxIDMapping) string {
	var s strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&s, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return s.String()
}

func sameMapping(a, b []specs.LinuxIDMapping) bool { return slices.Equal(a, b) }
