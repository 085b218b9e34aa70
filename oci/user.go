package oci

import (
	"math"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const scField = "linux.security_context."

// maxGroups is the kernel's NGROUPS_MAX (setgroups(2)).
const maxGroups = 65536

// account is who a process runs as, before its supplementary groups.
type account struct {
	passwdEntry
	known bool // the image's passwd has the user; name and home are from there
}

// user resolves whom the process runs as: the config's user over the image's,
// names looked up in the image's files, since the node's have nothing to do
// with it.
func (b *builder) user() (specs.User, error) {
	a, err := b.account()
	if err != nil {
		return specs.User{}, err
	}
	b.home = a.home
	if a.home == "" || a.home[0] != '/' || strings.ContainsRune(a.home, 0) {
		b.home = "/"
	}
	if !b.uidMapped(a.uid) {
		return specs.User{}, badContainer(scField+"run_as_user", "uid %d is not mapped in the pod's user namespace", a.uid)
	}
	if !b.gidMapped(a.gid) {
		return specs.User{}, badContainer(scField+"run_as_group", "gid %d is not mapped in the pod's user namespace", a.gid)
	}
	groups, err := b.groups(a)
	return specs.User{UID: a.uid, GID: a.gid, AdditionalGids: groups}, err
}

func (b *builder) account() (a account, err error) {
	uid, name, gid := b.sc.GetRunAsUser(), b.sc.GetRunAsUsername(), b.sc.GetRunAsGroup()
	switch {
	case uid != nil && name != "":
		return a, badContainer(scField+"run_as_username", "is set together with run_as_user")
	case gid != nil && uid == nil && name == "":
		return a, badContainer(scField+"run_as_group", "is set without run_as_user or run_as_username")
	case uid != nil:
		n, why := checkedID(uid.GetValue())
		if why != "" {
			return a, badContainer(scField+"run_as_user", "%s", why)
		}
		a = b.byUID(n)
	case name != "":
		if a = b.byName(name); !a.known {
			return a, badContainer(scField+"run_as_username", "%q is not in the image's /etc/passwd", name)
		}
	default:
		return b.imageUser(b.in.Image.Config.User)
	}
	if gid != nil {
		n, why := checkedID(gid.GetValue())
		if why != "" {
			return a, badContainer(scField+"run_as_group", "%s", why)
		}
		a.gid = n
	}
	return a, nil
}

// imageUser reads the image's User: a name or number, and after a colon a
// group (image-spec, config.md). Nothing is root. Digits are never a name, for
// the image's passwd could make any number root that somebody has looked at and
// found harmless (CVE-2026-46680).
func (b *builder) imageUser(s string) (a account, err error) {
	user, group, hasGroup := strings.Cut(s, ":")
	switch id, ok := parseID(user); {
	case ok || user == "":
		a = b.byUID(id) // 0 for ""
	case digits(user):
		return a, badImage("User", "%q is greater than 4294967294", user)
	default:
		if a = b.byName(user); !a.known {
			return a, badImage("User", "%q is not in the image's /etc/passwd", user)
		}
	}
	if !hasGroup || group == "" {
		return a, nil
	}
	gid, ok := parseID(group)
	switch {
	case ok:
	case digits(group):
		return a, badImage("User", "group %q is greater than 4294967294", group)
	default:
		if gid, ok = findGroup(b.in.Group, group); !ok {
			return a, badImage("User", "group %q is not in the image's /etc/group", group)
		}
	}
	a.gid = gid
	return a, nil
}

// digits tells a number that is no id from a name.
func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// byUID gives a user that the image does not know the group root, as runc and
// Docker always did.
func (b *builder) byUID(uid uint32) account {
	e, ok := findPasswd(b.in.Passwd, func(e passwdEntry) bool { return e.uid == uid })
	if !ok {
		e = passwdEntry{uid: uid}
	}
	return account{e, ok}
}

func (b *builder) byName(name string) account {
	e, ok := findPasswd(b.in.Passwd, func(e passwdEntry) bool { return e.name == name })
	return account{e, ok}
}

// groups returns the supplementary groups: the primary one first, or a file
// that denies its group would let the process in by dropping it
// (CVE-2022-36109); then those asked for, which hold the pod's fsGroup; then,
// unless the policy is Strict, those in which the image lists the user.
func (b *builder) groups(a account) ([]uint32, error) {
	list := []uint32{a.gid}
	field := scField + "supplemental_groups"
	for i, v := range b.sc.GetSupplementalGroups() {
		gid, why := checkedID(v)
		switch {
		case why != "":
			return nil, badContainer(indexed(field, i), "%s", why)
		case !b.gidMapped(gid):
			return nil, badContainer(indexed(field, i), "gid %d is not mapped in the pod's user namespace", gid)
		case !slices.Contains(list, gid):
			list = append(list, gid)
		}
	}
	switch policy := b.sc.GetSupplementalGroupsPolicy(); policy {
	case criapi.SupplementalGroupsPolicy_Strict:
	case criapi.SupplementalGroupsPolicy_Merge:
		for _, gid := range b.imageGroups(a) {
			// One that is not mapped cannot be had, and nobody asked for it.
			if b.gidMapped(gid) && !slices.Contains(list, gid) {
				list = append(list, gid)
			}
		}
	default:
		return nil, badContainer(scField+"supplemental_groups_policy", "unknown policy %d", int32(policy))
	}
	if len(list) > maxGroups {
		return nil, badContainer(field, "%d groups are more than the kernel's 65536", len(list))
	}
	return list, nil
}

func (b *builder) imageGroups(a account) []uint32 {
	if !a.known {
		return nil
	}
	return memberships(b.in.Group, a.name)
}

func checkedID(v int64) (id uint32, why string) {
	switch {
	case v < 0:
		return 0, "is negative"
	case v >= math.MaxUint32:
		return 0, "is greater than 4294967294"
	}
	return uint32(v), ""
}

// User words the user of a container's spec for ContainerStatus.user.
func User(s *specs.Spec) *criapi.ContainerUser {
	u := s.Process.User
	out := &criapi.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, g := range u.AdditionalGids {
		out.SupplementalGroups = append(out.SupplementalGroups, int64(g))
	}
	return &criapi.ContainerUser{Linux: out}
}

// ImageUser resolves an image's User by the image's own files, with the groups that list it.
func ImageUser(user string, passwd, group []byte) (specs.User, error) {
	b := &builder{in: ContainerInput{Passwd: passwd, Group: group}}
	a, err := b.imageUser(user)
	if err != nil {
		return specs.User{}, err
	}
	groups := slices.DeleteFunc(b.imageGroups(a), func(gid uint32) bool { return gid == a.gid })
	return specs.User{UID: a.uid, GID: a.gid, AdditionalGids: groups}, nil
}
