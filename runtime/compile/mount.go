package compile

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// mount is one of spec.Mounts, parsed.
type mount struct {
	options
	field  string // "mounts[3]"
	typ    string
	source string
	dest   string
	tree   plan.Slot // the clone to attach, NoSlot: init takes the source itself
	late   bool      // becomes read-only when everything is in place
	layers []string  // of a read-only overlay that the parent makes, top first
	userns plan.Slot // whose maps the mount takes; NoSlot: it is not idmapped
}

// procFiles may be mounted over: lxcfs emulates them. Anything else below /proc could fool what relies on it
// (CVE-2019-16884, CVE-2023-28642).
var procFiles = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
	"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

func (b *builder) readMounts() error {
	b.devices = true
	for i, m := range b.spec.Mounts {
		parsed, err := b.readMount(at("mounts", i, ""), m)
		if err != nil {
			return err
		}
		if parsed.bind && !parsed.remount && parsed.dest == "/dev" {
			b.devices = false // somebody else's: nothing is made in it
		}
		b.mounts = append(b.mounts, parsed)
	}
	b.takeTrees()
	return nil
}

func (b *builder) readMount(field string, m specs.Mount) (mount, error) {
	o, err := parseOptions(field+".options", m.Options)
	if err != nil {
		return mount{}, err
	}
	parsed := mount{options: o, field: field, typ: m.Type, source: m.Source, dest: path.Join("/", m.Destination), tree: plan.NoSlot, userns: plan.NoSlot}
	if m.Destination == "" {
		return parsed, bad(field+".destination", "is empty")
	}
	if !path.IsAbs(m.Destination) {
		b.warn("%s.destination: %q is relative; it is taken from the root", field, m.Destination)
	}
	parsed.bind = parsed.bind || m.Type == "bind"
	parsed.idmap = parsed.idmap || len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0
	b.readLayers(&parsed)
	if !parsed.bind && !parsed.remount && parsed.layers == nil { // a new file system is a tree of one mount
		parsed.set = parsed.set&^parsed.recClear | parsed.recSet
	}
	if parsed.bind && len(parsed.data) > 0 { // as mount(2) does
		b.warn("%s.options: %q means nothing for a bind mount", field, parsed.data[0])
		parsed.data = nil
	}
	if err := b.checkMount(&parsed); err != nil {
		return parsed, err
	}
	if parsed.idmap {
		parsed.userns, err = b.idmap(&parsed, m)
	}
	return parsed, err
}

func (b *builder) checkMount(m *mount) error {
	switch {
	case m.dest == "/" && !m.remount:
		return bad(m.field+".destination", "is the root itself")
	case m.bind && m.source == "" && !m.remount:
		return bad(m.field+".source", "is empty")
	case m.copyUp && (m.bind || m.remount || m.typ != "tmpfs"):
		return bad(m.field+".options", "tmpcopyup is for a new tmpfs only")
	case !m.bind && m.typ == "" && !m.remount:
		return bad(m.field+".type", "is empty, and the options have neither bind nor rbind")
	case m.dest == "/proc" && !m.remount && !(m.bind && path.Clean(m.source) == "/proc") && (m.bind || m.typ != "proc"):
		return bad(m.field+".destination", "only procfs can be mounted on /proc")
	case strings.HasPrefix(m.dest, "/proc/") && !m.remount && !slices.Contains(procFiles, m.dest):
		return bad(m.field+".destination", "%q lies inside /proc", m.dest)
	case b.ns.has(plan.NewUser) && m.bind && m.shared():
		return bad(m.field+".options", "shared propagation would lead out of the user namespace")
	}
	if m.bind && !m.remount && !path.IsAbs(m.source) {
		if !path.IsAbs(b.o.Bundle) {
			return bad(m.field+".source", "%q is relative", m.source)
		}
		m.source = path.Join(b.o.Bundle, m.source)
	}
	m.late = m.set&plan.AttrRdonly != 0 && !m.remount && (m.dest == "/dev" || m.typ == "tmpfs" && !m.bind)
	return nil
}

// takeTrees decides who clones each bind source, and where. Most are left to init, which looks them up in the
// container's mount namespace before the root changes. The parent does it for what only it can see: sources
// in the private mount namespace, before there is a process; and for a container in a user namespace, whose
// root may not be able to reach the source, all others, in the container's mount namespace, so that flags of
// the host's mounts stay locked. A parent without privileges can reach no more than the container's root, who is it.
func (b *builder) takeTrees() {
	for i := range b.mounts {
		m := &b.mounts[i]
		switch {
		case m.layers != nil:
			b.makeVolume(m)
		case !m.bind || m.remount:
		case b.private(m.source):
			m.tree = b.p.NewSlot(m.source)
			t := b.tree(m)
			t.In, t.Propagation = plan.InPrivate, plan.PropPrivate|plan.PropRec
			b.before(plan.CloneTree(plan.Parent, m.tree, t))
		case !b.ns.has(plan.NewUser) && (b.peer(m) || m.userns != plan.NoSlot):
			m.tree = b.p.NewSlot(m.source)
		}
	}
	if b.ns.has(plan.NewUser) && !b.unprivileged() {
		b.takeCrossing()
	}
}

// takeCrossing plans what is cloned after the clone. Its slots are in one row: they cross over together.
func (b *builder) takeCrossing() {
	if b.o.Rootfs.empty() || b.hasRuntimeHooks() {
		b.rootTree = b.crossing(plan.Tree{Source: b.rootPath, Flags: plan.BindRecursive, UserNS: plan.NoSlot})
	}
	for i := range b.mounts {
		if m := &b.mounts[i]; m.bind && !m.remount && !b.private(m.source) {
			m.tree = b.crossing(b.tree(m))
		}
	}
}

func (b *builder) crossing(t plan.Tree) plan.Slot {
	slot := b.p.NewSlot(t.Source)
	if len(b.cross) == 0 {
		b.crossFirst = slot
	}
	t.In = plan.InContainer
	b.cross = append(b.cross, plan.CloneTree(plan.Parent, slot, t))
	return slot
}

func (b *builder) tree(m *mount) plan.Tree {
	t := plan.Tree{Source: m.source}
	if m.recursive {
		t.Flags = plan.BindRecursive
	}
	if t.UserNS = m.userns; m.idmapRec {
		t.Flags |= plan.BindMapRecursive
	}
	return t
}

// peer says whether the mount shall stay in one peer group with the host's, so that each sees what the other
// mounts below it.
func (b *builder) peer(m *mount) bool {
	return m.shared() || len(m.propagation) == 0 && rootPropagations[b.spec.Linux.RootfsPropagation]&plan.PropShared != 0
}

// clonePeers clones them before / becomes a slave: a clone of a slave is a slave.
func (b *builder) clonePeers() {
	for i := range b.mounts {
		if m := &b.mounts[i]; m.cloned(b) && b.peer(m) {
			b.then(plan.CloneTree(plan.Init, m.tree, b.tree(m)))
		}
	}
}

// cloned says whether init clones the source with an op of its own, not with the bind.
func (m *mount) cloned(b *builder) bool {
	return m.bind && m.tree != plan.NoSlot && !b.private(m.source) && !b.ns.has(plan.NewUser)
}

// handOver has the parent clone what is looked up in the new mount namespace, and takes the clones.
func (b *builder) handOver() {
	if len(b.cross) == 0 {
		return
	}
	b.then(plan.Meet("mount-namespace", plan.ParentWaits, plan.NoSlot, 0))
	b.then(b.cross...)
	b.then(plan.Meet("trees", plan.InitWaits, b.crossFirst, len(b.cross)))
}

func (b *builder) doMounts() error {
	for _, m := range b.mounts {
		var err error
		switch {
		case m.remount:
			b.then(plan.ChangeAttr(b.root, m.dest, m.set, m.clear, 0, m.firstPropagation()))
			if m.recSet|m.recClear != 0 {
				b.then(plan.ChangeAttr(b.root, m.dest, m.recSet, m.recClear, plan.BindRecursiveAttr, 0))
			}
		case m.bind, m.layers != nil:
			b.bindMount(m)
		case m.copyUp:
			b.copyUp(m)
		case m.typ == "cgroup":
			err = b.mountCgroups(m)
		default:
			b.mountFS(m, m.typ, m.source)
		}
		if err != nil {
			return err
		}
		b.morePropagation(m)
	}
	return nil
}

func (o *options) firstPropagation() uint64 {
	if len(o.propagation) == 0 {
		return 0
	}
	return o.propagation[0]
}

func (b *builder) bindMount(m mount) {
	if m.cloned(b) && !b.peer(&m) {
		b.then(plan.CloneTree(plan.Init, m.tree, b.tree(&m)))
	}
	bind := plan.BindMount{
		Tree: m.tree, Source: m.source, Target: m.dest, Set: m.set, Clear: m.clear, RecSet: m.recSet, RecClear: m.recClear,
		Propagation: m.firstPropagation(), Create: plan.CreateLike,
	}
	if m.late {
		bind.Set &^= plan.AttrRdonly
	}
	if m.tree != plan.NoSlot {
		bind.Source = ""
	}
	if m.recursive {
		bind.Flags = plan.BindRecursive
	}
	b.then(plan.Bind(b.root, bind))
}

// mountFS makes a new file system. Its read-only state is the mount's, not the file system's: sysfs and the
// cgroup hierarchies are shared with the host.
func (b *builder) mountFS(m mount, typ, source string) {
	if source == "" {
		source = typ
	}
	attrs := m.set
	if m.late {
		attrs &^= plan.AttrRdonly
	}
	b.then(plan.NewMount(b.root, plan.FS{
		Type: typ, Source: source, Target: m.dest, Options: append(slices.Clone(m.data), b.mountContext(typ)...),
		Attrs: attrs, Create: plan.CreateDir, Propagation: m.firstPropagation(), LikeTarget: likeTarget(&m),
	}))
}

// mountContext labels a new file system for SELinux. The kernel's own have labels already.
func (b *builder) mountContext(typ string) []string {
	label := b.spec.Linux.MountLabel
	if label == "" || !b.o.Facts.SELinux || slices.Contains([]string{"proc", "sysfs", "cgroup", "cgroup2", "mqueue"}, typ) {
		return nil
	}
	return []string{"context", label}
}

// morePropagation sets what one call could not: further propagation types.
func (b *builder) morePropagation(m mount) {
	if len(m.propagation) > 1 {
		for _, p := range m.propagation[1:] {
			b.then(plan.ChangeAttr(b.root, m.dest, 0, 0, 0, p))
		}
	}
}
