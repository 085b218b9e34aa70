package compile

import (
	"path"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// rootPropagations are the values of linux.rootfsPropagation.
var rootPropagations = map[string]uint64{
	"": 0, "private": plan.PropPrivate, "rprivate": plan.PropPrivate | plan.PropRec,
	"slave": plan.PropSlave, "rslave": plan.PropSlave | plan.PropRec,
	"shared": plan.PropShared, "rshared": plan.PropShared | plan.PropRec,
	"unbindable": plan.PropUnbindable, "runbindable": plan.PropUnbindable | plan.PropRec,
}

// checkRoot finds out where the root file system comes from and where it is attached.
func (b *builder) checkRoot() error {
	if _, ok := rootPropagations[b.spec.Linux.RootfsPropagation]; !ok {
		return bad("linux.rootfsPropagation", "unknown %q", b.spec.Linux.RootfsPropagation)
	}
	root := b.spec.Root
	switch {
	case root == nil:
		return bad("root", "is missing")
	case root.Path == "":
		return bad("root.path", "is empty")
	}
	b.rootPath = path.Clean(root.Path)
	if !path.IsAbs(root.Path) {
		if !path.IsAbs(b.o.Bundle) {
			return bad("root.path", "%q is relative, and the bundle is not known", root.Path)
		}
		b.rootPath = path.Join(b.o.Bundle, root.Path)
	}
	if b.rootPath == "/" {
		return bad("root.path", "is the host's root")
	}
	return b.checkOverlay()
}

func (b *builder) checkOverlay() error {
	r := b.o.Rootfs
	switch {
	case r.empty():
		return nil
	case len(r.Lower) == 0:
		return bad("rootfs", "has no layers")
	case (r.Upper == "") != (r.Work == ""):
		return bad("rootfs", "upper %q and work %q: give both or none", r.Upper, r.Work)
	case b.ns.fresh&plan.NewUser != 0:
		return bad("rootfs", "layers are not supported yet with a new user namespace")
	case b.ns.joined&plan.NewUser != 0 && !b.o.Facts.IdmapMounts:
		return bad("rootfs", "this kernel has no idmapped mounts, which layers need in a user namespace")
	}
	return nil
}

// makeRoot makes the overlay on the parent side. Hooks of the runtime namespace want to see it on the host.
func (b *builder) makeRoot() {
	if b.o.Rootfs.empty() {
		return
	}
	tree := b.p.NewSlot("root file system")
	v := plan.Overlay{Lower: b.o.Rootfs.Lower, Upper: b.o.Rootfs.Upper, Work: b.o.Rootfs.Work, Way: b.overlayWay(b.o.Rootfs.Lower), UserNS: plan.NoSlot}
	if slot, ok := b.ns.slot[plan.NewUser]; ok {
		v.UserNS = slot
	}
	if label := b.spec.Linux.MountLabel; label != "" && b.o.Facts.SELinux {
		v.Options = []string{"context=" + label}
	}
	b.before(plan.MakeOverlay(tree, v))
	if b.hasRuntimeHooks() {
		b.before(plan.HostRootfs(tree, b.rootPath))
		return
	}
	b.rootTree = tree
	if b.o.Stage != "" {
		b.rootPath = path.Clean(b.o.Stage)
	}
}

// attachRoot cuts the mount namespace off from the host's and attaches the root in it.
func (b *builder) attachRoot() {
	b.clonePeers()
	cut := uint64(plan.PropSlave | plan.PropRec)
	if p := rootPropagations[b.spec.Linux.RootfsPropagation]; p&plan.PropPrivate != 0 {
		cut = plan.PropPrivate | plan.PropRec
	}
	b.then(plan.SetPropagation("/", cut))
	b.handOver()
	b.root = b.p.NewSlot("root")
	b.then(plan.PlaceRoot(b.rootTree, b.root, b.rootPath))
}

// pivot makes it the root, and whatever had to stay writable until now read-only.
func (b *builder) pivot() {
	b.then(plan.PivotRoot(b.root, b.o.NoPivot))
	if p := rootPropagations[b.spec.Linux.RootfsPropagation]; p != 0 && p&plan.PropPrivate == 0 {
		b.then(plan.ChangeAttr(b.root, "/", 0, 0, 0, p))
	}
	for _, m := range b.mounts {
		if m.late {
			b.then(plan.ChangeAttr(b.root, m.dest, plan.AttrRdonly, 0, 0, 0))
		}
	}
	if b.spec.Root.Readonly {
		b.then(plan.ChangeAttr(b.root, "/", plan.AttrRdonly, 0, 0, 0))
	}
	for _, p := range b.spec.Linux.MaskedPaths {
		b.then(plan.Hide(b.root, path.Clean(p)))
	}
	for _, p := range b.spec.Linux.ReadonlyPaths {
		b.then(plan.Lock(b.root, path.Clean(p)))
	}
}
