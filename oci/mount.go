package oci

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ttyGID is the group tty of every distribution; terminals of grantpt(3) want
// it.
const ttyGID = 5

// setMounts lists the mounts in the order in which they can be made: by depth,
// so that none hides another that came before it. A config's mount takes the
// place of a default one at the same destination.
func (b *builder) setMounts() error {
	volumes, propagation, err := b.volumes()
	if err != nil {
		return err
	}
	list := slices.DeleteFunc(b.defaultMounts(), func(m specs.Mount) bool {
		return overridden(m.Destination, volumes)
	})
	b.spec.Mounts = append(list, volumes...)
	slices.SortStableFunc(b.spec.Mounts, func(x, y specs.Mount) int {
		return depth(x.Destination) - depth(y.Destination)
	})
	b.spec.Linux.RootfsPropagation = propagation
	return nil
}

// overridden says whether volumes make a default mount needless: one is at the
// same place, or brings the whole of /dev or /sys, inside of which ours would
// be mounted on the node's own.
func overridden(dest string, volumes []specs.Mount) bool {
	for _, v := range volumes {
		whole := v.Destination == "/dev" || v.Destination == "/sys" || v.Destination == "/proc"
		if v.Destination == dest || whole && strings.HasPrefix(dest, v.Destination+"/") {
			return true
		}
	}
	return false
}

func depth(p string) int {
	if p = path.Clean(p); p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

// defaultMounts are those that every container has (runtime-spec,
// config-linux.md#default-filesystems) and the files that its pod shares.
func (b *builder) defaultMounts() []specs.Mount {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if b.gidMapped(ttyGID) { // devpts refuses a gid that its namespace lacks
		pts = append(pts, "gid=5")
	}
	ro := "ro"
	if b.privileged {
		ro = "rw"
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		b.shm(),
		b.sysfs(ro),
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", ro}},
	}
	access := "rw"
	if b.sc.GetReadonlyRootfs() {
		access = "ro"
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		list = append(list, specs.Mount{
			Destination: "/etc/" + name, Type: "bind", Source: podFile(b.runDir, b.in.PodID, name),
			Options: []string{"bind", "rprivate", access, "nosuid", "nodev", "noexec"},
		})
	}
	return list
}

// shm is the pod's, or the node's for a pod in the node's IPC namespace: POSIX
// shared memory is files there.
func (b *builder) shm() specs.Mount {
	source := podFile(b.runDir, b.in.PodID, "shm")
	if !b.podHas(specs.IPCNamespace) {
		source = "/dev/shm"
	}
	return specs.Mount{
		Destination: "/dev/shm", Type: "bind", Source: source,
		Options: []string{"bind", "rprivate", "rw", "nosuid", "noexec", "nodev"},
	}
}

// sysfs shows the network namespace and may be mounted only by its owner: in a
// user namespace on the node's network the node's is bound instead.
func (b *builder) sysfs(access string) specs.Mount {
	m := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}}
	if !b.userns() || b.podHas(specs.NetworkNamespace) {
		return m
	}
	if b.in.Facts.RecursiveReadonly { // what is mounted below it must not stay writable
		access = "rro"
	}
	m.Type, m.Source = "bind", "/sys"
	m.Options = []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", access}
	return m
}
