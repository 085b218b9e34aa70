package compile

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Pod compiles what a pod shares: its cgroup, its /dev/shm and its namespaces, which are pinned by path so
// that no process is needed to keep them. Without a user or PID namespace a thread of the engine makes them;
// with one, a process does, and with a PID namespace it stays as its PID 1.
func Pod(spec *specs.Spec, o Options) (*plan.Plan, error) {
	b, err := newBuilder(spec, o)
	if err != nil {
		return nil, err
	}
	b.proc = nil
	if err := b.checkPod(); err != nil {
		return nil, err
	}
	if b.ns.fresh&plan.NewPID != 0 {
		b.ns.fresh |= plan.NewNS // the pause process's own
	}
	process := b.ns.fresh&(plan.NewUser|plan.NewPID) != 0
	pause := b.ns.fresh&plan.NewPID != 0
	if err := b.podCgroup(pause); err != nil {
		return nil, err
	}
	if err := b.podShm(); err != nil {
		return nil, err
	}
	if process {
		err = b.podProcess()
	} else if b.ns.fresh != 0 {
		err = b.podThread()
	}
	if err != nil {
		return nil, err
	}
	return b.finish(process)
}

func (b *builder) checkPod() error {
	switch {
	case !validID(b.o.ID):
		return bad("id", "%q is not an id: letters, digits and _ + - . only", b.o.ID)
	case !path.IsAbs(b.o.RunDir):
		return bad("run directory", "%q is relative", b.o.RunDir)
	case b.ns.has(plan.NewNS | plan.NewCgroup):
		return bad("linux.namespaces", "mount and cgroup namespaces are each container's own")
	case b.ns.joined != 0:
		return bad("linux.namespaces", "a pod makes its namespaces; it joins none")
	case b.ns.fresh&plan.NewTime != 0:
		return unsupported(b.ns.field[plan.NewTime])
	}
	return nil
}

// podCgroup makes the pod's group, which a pause process joins and nobody else: one that would hold nobody and limit
// nothing is not made.
func (b *builder) podCgroup(pause bool) error {
	switch {
	case b.spec.Linux.CgroupsPath == "":
		return nil
	case b.systemd():
		return b.podUnits(pause)
	case pause && len(b.o.Facts.Cgroup.Mounts) == 0:
		return b.pauseCgroup()
	case pause:
		return b.makeCgroup()
	case b.spec.Linux.Resources == nil:
		return nil
	}
	joins := b.o
	b.o.Facts.Cgroup.Mounts, b.o.Facts.Cgroup.Unified = nil, ""
	err := b.makeCgroup()
	b.o = joins
	return err
}

// pauseCgroup is for a machine with v2 alone, where a group that has a process has no groups below it that anybody could
// join (cgroups(7), no internal processes): the pause process is in one of its own, beside the containers'.
func (b *builder) pauseCgroup() error {
	dir, err := b.cgroupPath()
	if err != nil {
		return err
	}
	limits, err := b.resources()
	if err != nil {
		return err
	}
	pause := path.Join(dir, "pause")
	b.before(plan.MakeCgroup(dir, limits), plan.MakeCgroup(pause, nil))
	return b.openCgroups(pause)
}

// podDir holds what the pod shares.
func (b *builder) podDir() string { return path.Join(b.o.RunDir, "pods", b.o.ID) }

// podShm mounts the tmpfs that the containers bind at /dev/shm: 64 MiB unless the specification says more.
func (b *builder) podShm() error {
	shm := mount{options: options{set: plan.AttrNosuid | plan.AttrNodev | plan.AttrNoexec, data: []string{"mode", "1777", "size", "65536k"}}}
	found := b.ns.fresh&plan.NewIPC != 0
	target := path.Join(b.podDir(), "shm")
	for i, m := range b.spec.Mounts {
		field := at("mounts", i, "")
		if dest := path.Clean(m.Destination); m.Type != "tmpfs" || dest != target && dest != "/dev/shm" {
			return bad(field, "a pod has a tmpfs at /dev/shm only")
		}
		o, err := parseOptions(field+".options", m.Options)
		if err != nil {
			return err
		}
		shm.options, found = o, true
	}
	if !found {
		return nil
	}
	var data []string
	for i := 0; i < len(shm.data); i += 2 {
		data = append(data, strings.TrimSuffix(shm.data[i]+"="+shm.data[i+1], "="))
	}
	b.before(plan.MountInPrivate("tmpfs", target, data, shm.set))
	return nil
}

// podThread has a thread of the engine make the namespaces.
func (b *builder) podThread() error {
	pairs, err := b.sysctls()
	if err != nil {
		return err
	}
	var sysctls []string
	for _, s := range pairs {
		sysctls = append(sysctls, s[0]+"="+s[1])
	}
	b.before(plan.MakeNamespaces(b.ns.fresh, b.spec.Hostname, b.spec.Domainname, sysctls))
	b.before(b.pins()...)
	return nil
}

// podProcess has a process make the namespaces, because the maps of a user namespace are written from
// outside and a PID namespace begins with a child.
func (b *builder) podProcess() error {
	b.enter()
	if err := b.identity(); err != nil {
		return err
	}
	b.joinCgroups(true)
	b.then(plan.Meet("made", plan.ParentWaits, plan.NoSlot, 0))
	b.then(b.pins()...)
	b.then(plan.Meet("pinned", plan.InitWaits, plan.NoSlot, 0))
	if b.ns.fresh&plan.NewPID == 0 {
		b.then(plan.Bare(plan.Exit))
		return nil
	}
	return b.pause()
}

// pause stays as PID 1 of what the containers share. One of them that may look into other processes (CAP_SYS_PTRACE) can
// make it do anything, and follow /proc/1/root: so it has a root of its own with nothing in it, no capability, and what
// it runs as and under is what the pod asks for.
func (b *builder) pause() error {
	filter, err := b.filter()
	if err != nil {
		return err
	}
	if len(filter) > 1 {
		return bad("linux.seccomp.syscalls", "SCMP_ACT_NOTIFY: the pause process has nobody to ask")
	}
	b.emptyRoot()
	var user specs.User
	if b.spec.Process != nil {
		user = b.spec.Process.User
	}
	b.then(plan.SetBounding(0), plan.SetUser(user.UID, user.GID, user.AdditionalGids, user.Umask), plan.SetCaps(0, 0, 0, 0), plan.Bare(plan.NoNewPrivs))
	b.then(filter...)
	b.then(plan.Bare(plan.Pause))
	return nil
}

// emptyRoot leaves the host's mounts for an empty file system. It is attached on /proc, which is there on any host, and
// which the root of a user namespace may reach too.
func (b *builder) emptyRoot() {
	b.root = b.p.NewSlot("root")
	b.then(
		plan.SetPropagation("/", plan.PropPrivate|plan.PropRec),
		plan.NewMount(plan.NoSlot, plan.FS{
			Type: "tmpfs", Source: "pause", Target: "/proc", Options: []string{"mode", "555", "nr_inodes", "2", "size", "4096"},
			Attrs: plan.AttrRdonly | plan.AttrNosuid | plan.AttrNodev | plan.AttrNoexec,
		}),
		plan.PlaceRoot(plan.NoSlot, b.root, "/proc"),
		plan.PivotRoot(b.root, b.o.NoPivot),
	)
}

// pins bind each namespace to a path. The network's is the one that CNI plugins must see on the host.
func (b *builder) pins() []plan.Op {
	var ops []plan.Op
	for _, t := range nsTypes {
		switch {
		case b.ns.fresh&t.flag == 0, t.flag == plan.NewNS:
		case t.flag == plan.NewNet:
			ops = append(ops, plan.Pin(t.file, path.Join(b.o.RunDir, "netns", b.o.ID), plan.InHost))
		default:
			ops = append(ops, plan.Pin(t.file, path.Join(b.podDir(), "ns", string(t.typ)), plan.InPrivate))
		}
	}
	return ops
}
