package compile

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// joinFile is the file of one hierarchy into which the process writes 0.
type joinFile struct {
	controller string
	slot       plan.Slot
	memory     bool // joined last
}

// hierarchy is one mounted v1 hierarchy.
type hierarchy struct {
	mount       string
	controllers []string // sorted; named ones as name=systemd
}

// hierarchies gives the v1 hierarchies in a fixed order, memory last.
func hierarchies(c host.Cgroup) []hierarchy {
	byMount := map[string][]string{}
	for _, controller := range sortedKeys(c.Mounts) {
		byMount[c.Mounts[controller]] = append(byMount[c.Mounts[controller]], controller)
	}
	var list, last []hierarchy
	for _, m := range sortedKeys(byMount) {
		h := hierarchy{mount: m, controllers: byMount[m]}
		if h.has("memory") {
			last = append(last, h)
		} else {
			list = append(list, h)
		}
	}
	return append(list, last...)
}

func (h hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

// cgroupPath is the container's group within each hierarchy. "slice:prefix:name" is where systemd would make it.
func (b *builder) cgroupPath() (string, error) {
	p := b.spec.Linux.CgroupsPath
	if b.systemd() || strings.HasSuffix(strings.SplitN(p, ":", 2)[0], ".slice") && strings.Count(p, ":") == 2 {
		u, err := b.unit()
		return u.Path, err
	}
	if p == "" {
		p = b.container()
	}
	if slices.Contains(strings.Split(p, "/"), "..") {
		return "", bad("linux.cgroupsPath", "%q leads out with ..", p)
	}
	if p = path.Join("/", p); p == "/" {
		return "", bad("linux.cgroupsPath", "is the root of the hierarchies: its limits would be the host's")
	}
	return p, nil
}

// CgroupPath is the group of a container within each hierarchy, "" where it gets none.
func CgroupPath(spec *specs.Spec, o Options) (string, error) {
	b, err := newBuilder(spec, o)
	if err != nil || o.NoCgroup {
		return "", err
	}
	return b.cgroupPath()
}

// makeCgroup makes the group with its limits and opens what is joined.
func (b *builder) makeCgroup() error {
	if b.o.NoCgroup {
		return b.refuseLimits()
	}
	dir, err := b.cgroupPath()
	if err != nil {
		return err
	}
	limits, err := b.resources()
	if err != nil {
		return err
	}
	if b.systemd() {
		return b.makeScope(limits)
	}
	b.before(plan.MakeCgroup(dir, limits))
	return b.openCgroups(dir)
}

// resources are the limits in their canonical form.
func (b *builder) resources() ([]byte, error) {
	if b.spec.Linux.Resources == nil {
		return nil, nil
	}
	limits, err := json.Marshal(b.spec.Linux.Resources)
	if err != nil {
		return nil, bad("linux.resources", "%v", err)
	}
	return limits, nil
}

// refuseLimits: what a container without a cgroup cannot have is said, in runc's words.
func (b *builder) refuseLimits() error {
	r := b.spec.Linux.Resources
	if r == nil {
		return nil
	}
	for _, limit := range []struct {
		name string
		set  bool
	}{
		{"memory", r.Memory != nil}, {"cpu", r.CPU != nil}, {"pids", r.Pids != nil}, {"blockIO", r.BlockIO != nil}, {"hugepageLimits", len(r.HugepageLimits) > 0},
		{"network", r.Network != nil}, {"rdma", len(r.Rdma) > 0}, {"unified", len(r.Unified) > 0}, {"devices", len(r.Devices) > 0},
	} {
		if limit.set {
			return bad("linux.resources."+limit.name, "cannot set %s limit: container could not join or create cgroup; give linux.cgroupsPath one that you may write, or none of linux.resources", limit.name)
		}
	}
	return nil
}

// openCgroups opens the join files: tasks of each v1 hierarchy, memory last; cgroup.procs of v2. With a new
// cgroup namespace it opens the way out of the memory group too, see unshare.
func (b *builder) openCgroups(dir string) error {
	if b.o.NoCgroup {
		return nil
	}
	facts := b.o.Facts.Cgroup
	for _, h := range hierarchies(facts) {
		file := path.Join(h.mount, b.execGroup(b.subCgroup(dir, h.controllers), h.has("freezer")), "tasks")
		b.addJoin(h.controllers[0], file, h.has("memory"))
		if h.has("memory") && b.ns.fresh&plan.NewCgroup != 0 {
			b.memoryOut = b.open("memory cgroup of the maker", path.Join(h.mount, facts.Own["memory"], "tasks"), plan.OpenWrite)
		}
	}
	return b.openUnified(dir)
}

// openUnified joins the v2 hierarchy. Beside v1 hierarchies it is left out where the container has no limits
// in it: the write costs milliseconds.
func (b *builder) openUnified(dir string) error {
	facts := b.o.Facts.Cgroup
	pure := len(facts.Mounts) == 0
	dir = b.subCgroup(dir, facts.UnifiedControllers)
	switch {
	case facts.Unified == "":
		return nil
	case b.o.CloneInto && !b.startsOutside():
		slot := b.open("cgroup", path.Join(facts.Unified, b.execGroup(dir, pure)), plan.OpenPath)
		b.clone.Slot[0] = slot
	case pure || b.o.CloneInto || b.limitsInUnified() || b.systemd(): // it looks into the v2 hierarchy for who is in a scope
		b.addJoin("unified", path.Join(facts.Unified, b.execGroup(dir, pure), "cgroup.procs"), false)
	default:
		return nil
	}
	b.unifiedIn = true
	return nil
}

func (b *builder) limitsInUnified() bool {
	r := b.spec.Linux.Resources
	if r == nil {
		return false
	}
	return len(r.Unified) > 0 || len(r.HugepageLimits) > 0 && slices.Contains(b.o.Facts.Cgroup.UnifiedControllers, "hugetlb")
}

func (b *builder) addJoin(controller, file string, memory bool) {
	slot := b.open("cgroup "+strings.TrimPrefix(controller, "name="), file, plan.OpenWrite)
	b.cgroups = append(b.cgroups, joinFile{strings.TrimPrefix(controller, "name="), slot, memory})
}

// subCgroup gives the group that an exec joins in the hierarchy of some controllers.
func (b *builder) subCgroup(dir string, controllers []string) string {
	sub := b.o.SubCgroups[""]
	for _, c := range controllers {
		if s, ok := b.o.SubCgroups[c]; ok {
			sub = s
		}
	}
	return path.Join(dir, path.Join("/", sub)) // .. leads no higher than to the container's
}

// execGroup puts an exec into a group of its own in the one hierarchy that is used for killing.
func (b *builder) execGroup(dir string, killing bool) string {
	if b.o.KillGroup && killing {
		return path.Join(dir, "exec-"+b.o.ID)
	}
	return dir
}

// joinCgroups joins the memory group, or all others.
func (b *builder) joinCgroups(memory bool) {
	for _, c := range b.cgroups {
		if c.memory == memory {
			b.then(plan.JoinCgroup(c.slot, c.controller))
		}
	}
}

// mountCgroups mounts what a container sees at /sys/fs/cgroup: on v2 the hierarchy, on v1 a directory with one
// mount for each (cgroups(7)).
func (b *builder) mountCgroups(m mount) error {
	facts := b.o.Facts.Cgroup
	if len(facts.Mounts) == 0 {
		return b.mountPure(m)
	}
	writable := m
	writable.set &^= plan.AttrRdonly
	writable.data = []string{"mode", "755"}
	b.mountFS(writable, "tmpfs", "tmpfs")
	dir, err := b.cgroupPath()
	if err != nil {
		return err
	}
	for _, h := range hierarchies(facts) {
		if !b.o.NoCgroup { // its own group is what it may see
			b.mountHierarchy(m, h, dir)
		}
	}
	if b.unifiedIn {
		b.mountUnified(m, dir)
	}
	if m.set&plan.AttrRdonly != 0 {
		b.then(plan.ChangeAttr(b.root, m.dest, plan.AttrRdonly, 0, 0, 0))
	}
	return nil
}

// mountPure mounts v2 as the cgroup namespace shows it. The kernel lets only the user namespace that owns the cgroup
// namespace do so: another one gets the container's own group of the host's.
func (b *builder) mountPure(m mount) error {
	if b.ns.has(plan.NewCgroup) || !b.ns.has(plan.NewUser) {
		b.mountFS(m, "cgroup2", "cgroup")
		return nil
	}
	dir, err := b.cgroupPath()
	if err != nil {
		return err
	}
	if !b.o.NoCgroup {
		b.bindGroup(m, path.Join(b.o.Facts.Cgroup.Unified, dir), m.dest)
	}
	return nil
}

// mountHierarchy mounts one v1 hierarchy: as the cgroup namespace shows it, or, without one, the container's
// own group of it, so that the host's groups stay out of sight.
func (b *builder) mountHierarchy(m mount, h hierarchy, dir string) {
	name := path.Base(h.mount)
	target := path.Join(m.dest, name)
	if b.ns.has(plan.NewCgroup) {
		b.then(plan.NewMount(b.root, plan.FS{Type: "cgroup", Source: "cgroup", Target: target, Options: h.options(), Attrs: m.set, Create: plan.CreateDir}))
	} else {
		b.bindGroup(m, path.Join(h.mount, dir), target)
	}
	for _, c := range h.controllers {
		if c != name && !strings.HasPrefix(c, "name=") {
			b.then(plan.MakeSymlink(b.root, name, path.Join(m.dest, c)))
		}
	}
}

func (b *builder) mountUnified(m mount, dir string) {
	target := path.Join(m.dest, "unified")
	if b.ns.has(plan.NewCgroup) {
		b.then(plan.NewMount(b.root, plan.FS{Type: "cgroup2", Source: "cgroup", Target: target, Attrs: m.set, Create: plan.CreateDir}))
		return
	}
	b.bindGroup(m, path.Join(b.o.Facts.Cgroup.Unified, dir), target)
}

func (b *builder) bindGroup(m mount, source, target string) {
	b.then(plan.Bind(b.root, plan.BindMount{
		Tree: plan.NoSlot, Source: source, Target: target, Set: m.set, Propagation: plan.PropPrivate, Create: plan.CreateDir,
	}))
}

// options name the hierarchy to mount: its controllers, or its name alone.
func (h hierarchy) options() []string {
	var o []string
	for _, c := range h.controllers {
		if name, ok := strings.CutPrefix(c, "name="); ok {
			o = append(o, "none", "", "name", name)
		} else {
			o = append(o, c, "")
		}
	}
	return o
}
