package oci

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NodeDevice is a device node of the node, as stat(2) showed it.
type NodeDevice struct {
	Path  string `json:"path"`
	Type  string `json:"type"` // "c" or "b"
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
	Mode  uint32 `json:"mode"` // permission bits
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
}

// baseRules is what every container may do (runtime-spec,
// config-linux.md#default-devices): make nodes of any device, use the harmless
// ones, the terminals included.
func baseRules() []specs.LinuxDeviceCgroup {
	any := func(t string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: t, Access: "m"}
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, any("c"), any("b")}
	for _, d := range [][2]int64{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null zero full random urandom
		{5, 0}, {5, 1}, {5, 2}, // tty console ptmx
	} {
		rules = append(rules, rule("c", d[0], d[1], "rwm"))
	}
	pts := int64(136)
	return append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &pts, Access: "rwm"})
}

func rule(t string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: t, Major: &major, Minor: &minor, Access: access}
}

// setDevices gives the container its device nodes and the rules to use them.
// The nodes that every container has (/dev/null …) are the runtime's to make.
func (b *builder) setDevices() error {
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: baseRules()}
	if b.privileged {
		b.spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		for _, d := range b.in.Devices {
			if !ownDevice(d.Path) {
				b.addDevice(d, d.Path)
			}
		}
	}
	for i, d := range b.in.Config.GetDevices() {
		if err := b.device(indexed("devices", i), d); err != nil {
			return err
		}
	}
	return nil
}

// ownDevice says whether a container has its own device at p, which the node's
// must not replace.
func ownDevice(p string) bool {
	for _, own := range []string{"/dev/pts", "/dev/shm", "/dev/mqueue"} {
		if strings.HasPrefix(p, own+"/") {
			return true
		}
	}
	return slices.Contains([]string{
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx",
	}, p)
}

// device adds what one entry names: a node, or every node of a directory.
func (b *builder) device(field string, d *criapi.Device) error {
	if why := checkAbs(d.GetHostPath()); why != "" {
		return badContainer(field+".host_path", "%s", why)
	}
	if why := checkAbs(d.GetContainerPath()); why != "" {
		return badContainer(field+".container_path", "%s", why)
	}
	access := d.GetPermissions()
	if access == "" || strings.Trim(access, "rwm") != "" || len(access) > 3 {
		return badContainer(field+".permissions", "%q is not one or more of r, w and m", access)
	}
	from, to := path.Clean(d.GetHostPath()), path.Clean(d.GetContainerPath())
	found := false
	for _, node := range b.in.Devices {
		rest, ok := strings.CutPrefix(node.Path, from)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		found = true
		b.addDevice(node, to+rest)
		r := &b.spec.Linux.Resources.Devices
		*r = append(*r, rule(node.Type, node.Major, node.Minor, access))
	}
	if !found {
		return badContainer(field+".host_path", "%q is no device and holds none", from)
	}
	return nil
}

// addDevice makes node appear at dest. In a user namespace no node can be
// made (mknod(2) needs CAP_MKNOD in the first one), and the runtime binds the
// node's of the same path; at any other path it must be a mount of its own.
func (b *builder) addDevice(node NodeDevice, dest string) {
	if b.userns() && dest != node.Path {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{
			Destination: dest, Type: "bind", Source: node.Path, Options: []string{"bind", "rprivate", "rw", "nosuid", "noexec"},
		})
		return
	}
	l := b.spec.Linux
	l.Devices = slices.DeleteFunc(l.Devices, func(d specs.LinuxDevice) bool { return d.Path == dest })
	mode, uid, gid := fs.FileMode(node.Mode), node.UID, node.GID
	l.Devices = append(l.Devices, specs.LinuxDevice{
		Path: dest, Type: node.Type, Major: node.Major, Minor: node.Minor, FileMode: &mode, UID: &uid, GID: &gid,
	})
}
