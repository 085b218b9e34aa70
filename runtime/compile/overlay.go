package compile

import (
	"slices"
	"strings"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// maxValue is how long a string of fsconfig(2) may be in bytes, with its end.
const maxValue = 256

// overlayWay is the best way that the kernel has for these layers.
func (b *builder) overlayWay(lower []string) uint64 {
	long := slices.ContainsFunc(lower, func(dir string) bool { return len(dir) >= maxValue })
	switch f := b.o.Facts; {
	case f.OverlayLayerFD:
		return plan.OverlayLayerFDs
	case f.OverlayLowerdirPlus && !long:
		return plan.OverlayLowerPlus
	}
	return plan.OverlayMount
}

// readLayers finds an overlay that has lower directories only: a volume of an image. The parent makes it, as it makes
// the root: init could neither map the ids of the layers nor name more of them than fit into a string of fsconfig(2). In
// a new user namespace, of which there is no descriptor, it is left to init.
func (b *builder) readLayers(m *mount) {
	if m.typ != "overlay" || m.bind || m.remount || b.ns.fresh&plan.NewUser != 0 {
		return
	}
	var lower string
	var rest []string
	for i := 0; i < len(m.data); i += 2 {
		switch m.data[i] {
		case "upperdir", "workdir":
			return
		case "lowerdir":
			lower = m.data[i+1]
		default:
			rest = append(rest, m.data[i], m.data[i+1])
		}
	}
	if lower != "" {
		m.layers, m.data = splitLayers(lower), rest
	}
}

// splitLayers reads a lowerdir option: a colon between two, a backslash before one that belongs to a name
// (Documentation/filesystems/overlayfs.rst).
func splitLayers(s string) (list []string) {
	var name strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			name.WriteByte(s[i])
		case s[i] == ':':
			list = append(list, name.String())
			name.Reset()
		default:
			name.WriteByte(s[i])
		}
	}
	return append(list, name.String())
}

// makeVolume makes the overlay of a volume, to be attached like any other tree.
func (b *builder) makeVolume(m *mount) {
	m.tree = b.p.NewSlot("volume " + m.dest)
	v := plan.Overlay{Lower: m.layers, Way: b.overlayWay(m.layers), Attrs: plan.AttrRdonly, UserNS: m.userns}
	for i := 0; i < len(m.data); i += 2 {
		v.Options = append(v.Options, strings.TrimSuffix(m.data[i]+"="+m.data[i+1], "="))
	}
	if label := b.spec.Linux.MountLabel; label != "" && b.o.Facts.SELinux {
		v.Options = append(v.Options, "context="+label)
	}
	b.before(plan.MakeOverlay(m.tree, v))
}
