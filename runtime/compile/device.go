package compile

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Types of a node, as mknod(2) has them.
const (
	typeFIFO  = 0o010000
	typeChar  = 0o020000
	typeBlock = 0o060000
)

// node is a device to make.
type node struct {
	path         string
	mode         uint32 // with the type
	major, minor uint32
	uid, gid     uint32
}

// defaultNodes are in every container (runtime-spec, config-linux.md, Default Devices).
var defaultNodes = []node{
	{path: "/dev/null", mode: typeChar | 0o666, major: 1, minor: 3},
	{path: "/dev/zero", mode: typeChar | 0o666, major: 1, minor: 5},
	{path: "/dev/full", mode: typeChar | 0o666, major: 1, minor: 7},
	{path: "/dev/random", mode: typeChar | 0o666, major: 1, minor: 8},
	{path: "/dev/urandom", mode: typeChar | 0o666, major: 1, minor: 9},
	{path: "/dev/tty", mode: typeChar | 0o666, major: 5, minor: 0},
}

// links are in every container's /dev, as in the host's.
var links = [][2]string{
	{"pts/ptmx", "/dev/ptmx"}, {"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
	{"/proc/kcore", "/dev/core"},
}

// nodes gives the devices to make: the default ones, unless the specification says otherwise about the same
// path, then its own. /dev/ptmx is always the link into the container's devpts.
func (b *builder) nodes() ([]node, error) {
	var own []node
	seen := map[string]bool{"/dev/ptmx": true}
	for i, d := range b.spec.Linux.Devices {
		n, err := readDevice(at("linux.devices", i, ""), d)
		if err != nil {
			return nil, err
		}
		if !seen[n.path] {
			own = append(own, n)
		}
		seen[n.path] = true
	}
	var list []node
	for _, n := range defaultNodes {
		if !seen[n.path] {
			list = append(list, n)
		}
	}
	return append(list, own...), nil
}

func readDevice(field string, d specs.LinuxDevice) (node, error) {
	n := node{path: path.Clean(d.Path), mode: 0o666}
	if !path.IsAbs(d.Path) || n.path == "/" {
		return n, bad(field+".path", "%q is not an absolute path of a file", d.Path)
	}
	if d.FileMode != nil {
		n.mode = uint32(*d.FileMode) & 0o7777
	}
	switch d.Type {
	case "c", "u":
		n.mode |= typeChar
	case "b":
		n.mode |= typeBlock
	case "p":
		n.mode |= typeFIFO
	default:
		return n, bad(field+".type", "unknown %q; there are c, b, u and p", d.Type)
	}
	if d.Type != "p" {
		if d.Major < 0 || d.Major >= 1<<12 || d.Minor < 0 || d.Minor >= 1<<20 {
			return n, bad(field+".major", "%d:%d is not a device number", d.Major, d.Minor)
		}
		n.major, n.minor = uint32(d.Major), uint32(d.Minor)
	}
	if d.UID != nil {
		n.uid = *d.UID
	}
	if d.GID != nil {
		n.gid = *d.GID
	}
	return n, nil
}

// makeDevices fills /dev. In a user namespace no device can be made, so the host's nodes are bound.
func (b *builder) makeDevices() error {
	nodes, err := b.nodes()
	if err != nil || !b.devices {
		return err
	}
	for _, n := range nodes {
		if b.ns.has(plan.NewUser) && n.mode&typeFIFO != n.mode&0o170000 {
			b.then(plan.Bind(b.root, plan.BindMount{
				Tree: plan.NoSlot, Source: n.path, Target: n.path, Propagation: plan.PropPrivate, Create: plan.CreateFile,
			}))
			continue
		}
		b.then(plan.MakeNode(b.root, n.path, n.mode, n.major, n.minor, n.uid, n.gid))
	}
	for _, l := range links {
		b.then(plan.MakeSymlink(b.root, l[0], l[1]))
	}
	return nil
}
