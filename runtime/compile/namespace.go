package compile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// nsType relates a type of the specification to its flag and to its name below /proc/PID/ns.
type nsType struct {
	typ  specs.LinuxNamespaceType
	flag uint64
	file string
}

// nsTypes are in the order in which namespaces are joined: the user namespace last of all, because with it
// goes the right to join the others.
var nsTypes = []nsType{
	{specs.NetworkNamespace, plan.NewNet, "net"},
	{specs.IPCNamespace, plan.NewIPC, "ipc"},
	{specs.UTSNamespace, plan.NewUTS, "uts"},
	{specs.TimeNamespace, plan.NewTime, "time"},
	{specs.CgroupNamespace, plan.NewCgroup, "cgroup"},
	{specs.PIDNamespace, plan.NewPID, "pid"},
	{specs.MountNamespace, plan.NewNS, "mnt"},
	{specs.UserNamespace, plan.NewUser, "user"},
}

// namespaces are what the specification lists: made anew, or joined by path.
type namespaces struct {
	fresh, joined uint64
	path          map[uint64]string
	field         map[uint64]string // "linux.namespaces[3]"
	slot          map[uint64]plan.Slot
}

func (n *namespaces) has(flag uint64) bool { return (n.fresh|n.joined)&flag != 0 }

func lookupNS(t specs.LinuxNamespaceType) (nsType, bool) {
	for _, n := range nsTypes {
		if n.typ == t {
			return n, true
		}
	}
	return nsType{}, false
}

// NamespaceTypes are those that a specification may list, sorted.
func NamespaceTypes() []specs.LinuxNamespaceType {
	var list []specs.LinuxNamespaceType
	for _, n := range nsTypes {
		list = append(list, n.typ)
	}
	slices.Sort(list)
	return list
}

func (b *builder) readNamespaces() error {
	b.ns = namespaces{path: map[uint64]string{}, field: map[uint64]string{}, slot: map[uint64]plan.Slot{}}
	for i, n := range b.spec.Linux.Namespaces {
		t, ok := lookupNS(n.Type)
		switch {
		case !ok:
			return bad(at("linux.namespaces", i, "type"), "unknown %q", n.Type)
		case b.ns.has(t.flag):
			return bad(at("linux.namespaces", i, "type"), "%q is there twice", n.Type)
		case n.Path != "" && !path.IsAbs(n.Path):
			return bad(at("linux.namespaces", i, "path"), "%q is relative", n.Path)
		}
		b.ns.field[t.flag] = at("linux.namespaces", i, "")
		if n.Path == "" {
			b.ns.fresh |= t.flag
		} else {
			b.ns.joined |= t.flag
			b.ns.path[t.flag] = n.Path
		}
	}
	return b.checkNamespaces()
}

func (b *builder) checkNamespaces() error {
	for _, want := range []struct {
		flag uint64
		have bool
		word string
	}{
		{plan.NewUser, b.o.Facts.UserNS, "user"}, {plan.NewTime, b.o.Facts.TimeNS, "time"}, {plan.NewCgroup, b.o.Facts.CgroupNS, "cgroup"},
	} {
		if b.ns.has(want.flag) && !want.have {
			return bad(b.ns.field[want.flag], "this kernel has no %s namespaces", want.word)
		}
	}
	if len(b.spec.Linux.TimeOffsets) > 0 && b.ns.fresh&plan.NewTime == 0 {
		return bad("linux.timeOffsets", "need a new time namespace")
	}
	for _, name := range []struct{ field, value string }{{"hostname", b.spec.Hostname}, {"domainname", b.spec.Domainname}} {
		if name.value != "" && !b.ns.has(plan.NewUTS) {
			return bad(name.field, "%q cannot be set without a UTS namespace", name.value)
		}
		if len(name.value) > 64 {
			return bad(name.field, "%q is longer than 64 bytes", name.value)
		}
	}
	return b.checkMappings()
}

// openNamespaces opens those that are joined. The root is changed in the mount namespace, and parameters are set in
// others: such a one cannot be the runtime's own.
func (b *builder) openNamespaces() {
	not := plan.NewNS | b.sysctlNamespaces()
	for _, t := range nsTypes {
		if b.ns.joined&t.flag != 0 {
			slot, file := b.p.NewSlot(t.file+" namespace"), b.ns.path[t.flag]
			if not&t.flag != 0 {
				b.before(plan.OpenOther(slot, file, t.file, b.where(file)))
			} else {
				b.before(plan.Open(slot, file, plan.OpenRead, b.where(file)))
			}
			b.ns.slot[t.flag] = slot
		}
	}
}

// cloneFlags are the namespaces that the clone itself can make. A user namespace has to own the others, so
// with one they come later. A time namespace takes effect for a child only, and that child has to be the
// first of its PID namespace.
func (b *builder) cloneFlags() uint64 {
	if b.ns.has(plan.NewUser) {
		return 0
	}
	flags := b.ns.fresh & (plan.NewNS | plan.NewPID | plan.NewIPC | plan.NewUTS | plan.NewNet)
	if b.ns.fresh&plan.NewTime != 0 {
		flags &^= plan.NewPID
	}
	return flags
}

// enter brings the new process into its cgroups and namespaces. before is what has to happen while the
// process is still the host's.
func (b *builder) enter(before ...plan.Op) {
	flags := b.cloneFlags()
	b.clone.Num[0] = flags
	b.then(b.scope...)
	late := b.ns.fresh &^ flags &^ plan.NewUser
	forks := (late|b.ns.joined)&plan.NewPID != 0 || late&plan.NewTime != 0
	if !forks {
		b.then(plan.Bare(plan.Setsid))
	}
	b.then(before...)
	for _, t := range nsTypes {
		if b.ns.joined&t.flag != 0 && t.flag != plan.NewUser {
			b.then(plan.JoinNS(b.ns.slot[t.flag], t.flag))
		}
	}
	b.joinCgroups(false)
	b.enterUser()
	b.unshare(late)
	if forks {
		// A session begins in the process that stays: only its leader can take a terminal.
		b.then(plan.Bare(plan.Fork), plan.Bare(plan.Setsid))
	}
}

// enterUser joins the user namespace, or makes it and has the parent write its maps.
func (b *builder) enterUser() {
	switch {
	case b.ns.joined&plan.NewUser != 0:
		b.raiseLimits()
		b.then(plan.JoinNS(b.ns.slot[plan.NewUser], plan.NewUser), plan.Bare(plan.MapRoot))
	case b.ns.fresh&plan.NewUser != 0:
		b.raiseLimits()
		b.then(
			b.unshareUser(),
			plan.Meet("user", plan.ParentWaits, plan.NoSlot, 0),
			plan.MapIDs(mapText(b.spec.Linux.UIDMappings), mapText(b.spec.Linux.GIDMappings), b.deniesGroups()),
			plan.Meet("mapped", plan.InitWaits, plan.NoSlot, 0),
			plan.Bare(plan.MapRoot),
		)
	}
}

// unprivileged: the parent is no root. It is then the owner of the user namespace and nothing beyond.
func (b *builder) unprivileged() bool {
	const sysAdmin = 21
	return !b.o.Facts.HasCap(sysAdmin)
}

func (b *builder) unshareUser() plan.Op {
	if b.unprivileged() {
		return plan.UnshareVisibly(plan.NewUser)
	}
	return plan.UnshareNS(plan.NewUser)
}

// deniesGroups: without privileges one's own group can be mapped if setgroups(2) is given up for it
// (user_namespaces(7)); other maps are written by newgidmap, which is privileged.
func (b *builder) deniesGroups() bool {
	gids := b.spec.Linux.GIDMappings
	return b.unprivileged() && b.ns.fresh&plan.NewUser != 0 && len(gids) == 1 && gids[0].Size == 1
}

// unshare makes the namespaces that the clone did not. The cgroup namespace takes the groups that the process
// is in at that moment for its roots. On v1 the memory group is joined at the very end, so it is visited here:
// without that, the container would see the memory group of its monitor as its root.
func (b *builder) unshare(flags uint64) {
	if flags == 0 {
		return
	}
	visit := flags&plan.NewCgroup != 0 && b.memoryOut != plan.NoSlot
	if visit {
		b.joinCgroups(true)
	}
	b.then(plan.UnshareNS(flags))
	if visit {
		b.then(plan.JoinCgroup(b.memoryOut, "memory"))
	}
	if flags&plan.NewTime != 0 && len(b.spec.Linux.TimeOffsets) > 0 {
		b.then(plan.Text(plan.TimeOffset, timeOffsets(b.spec.Linux.TimeOffsets)))
	}
}

func timeOffsets(offsets map[string]specs.LinuxTimeOffset) string {
	var lines []string
	for _, clock := range []string{"monotonic", "boottime"} {
		if o, ok := offsets[clock]; ok {
			lines = append(lines, fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs))
		}
	}
	return strings.Join(lines, "")
}

func checkTimeOffsets(offsets map[string]specs.LinuxTimeOffset) error {
	for _, clock := range sortedKeys(offsets) {
		field := fmt.Sprintf("linux.timeOffsets[%q]", clock)
		if clock != "monotonic" && clock != "boottime" {
			return bad(field, "unknown clock; there are monotonic and boottime")
		}
		if offsets[clock].Nanosecs >= 1e9 {
			return bad(field+".nanosecs", "%d is a second or more", offsets[clock].Nanosecs)
		}
	}
	return nil
}

// identity names the machine and sets its kernel parameters, through the host's procfs.
func (b *builder) identity() error {
	if b.ns.fresh&plan.NewUTS != 0 {
		if b.spec.Hostname != "" {
			b.then(plan.Text(plan.Hostname, b.spec.Hostname))
		}
		if b.spec.Domainname != "" {
			b.then(plan.Text(plan.Domainname, b.spec.Domainname))
		}
	}
	pairs, err := b.sysctls()
	for _, s := range pairs {
		b.then(plan.Text(plan.Sysctl, s[0], s[1]))
	}
	return err
}
