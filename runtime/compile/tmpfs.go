package compile

import (
	"slices"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// copyUp has the parent make a tmpfs that begins with what it will cover: the directory as the image, and the mounts
// made so far, have it. Init shows it the root once and stands still meanwhile.
func (b *builder) copyUp(m mount) {
	first := b.root
	if b.rootShown {
		first = plan.NoSlot
	}
	b.rootShown = true
	n := 0
	if first != plan.NoSlot {
		n = 1
	}
	tree := b.p.NewSlot("copy of " + m.dest)
	b.then(
		plan.Meet("copy-up", plan.ParentWaits, first, n),
		plan.CopyToTmpfs(tree, b.root, m.dest, append(slices.Clone(m.data), b.mountContext(m.typ)...), 0),
		plan.Meet("copied", plan.InitWaits, tree, 1),
	)
	m.tree = tree
	b.bindMount(m)
}

// likeTarget: without a mode of its own a tmpfs has the mode of the directory that it covers, as runc has it.
func likeTarget(m *mount) bool {
	if m.typ != "tmpfs" {
		return false
	}
	for i := 0; i < len(m.data); i += 2 {
		if m.data[i] == "mode" {
			return false
		}
	}
	return true
}
