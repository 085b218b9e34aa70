package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ids is one range of a mapping.
func ids(container, host, size uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: container, HostID: host, Size: size}}
}

// owned makes a directory with the file "a" of 1001:2001 and "b" of 1002:2002, on a tmpfs of its own, and "sub/c" of
// 1001:2001 on another one below it.
func owned(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "mini-runc-test-")
	must(t, err)
	sub := filepath.Join(dir, "sub")
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	must(t, os.Mkdir(sub, 0o755))
	must(t, unix.Mount("tmpfs", sub, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() {
		must(t, unix.Unmount(sub, 0))
		must(t, unix.Unmount(dir, 0))
		must(t, os.Remove(dir))
	})
	for i, name := range []string{"a", "b", "sub/c"} {
		file := filepath.Join(dir, name)
		must(t, os.WriteFile(file, nil, 0o644))
		must(t, os.Chown(file, 1001+i%2, 2001+i%2))
	}
	return dir
}

// joinable makes a user namespace with a mapping, for a container to join by its path.
func joinable(t *testing.T, host int) string {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: m, GidMappings: m, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)
}

// TestIdmappedMounts: whose a mount's files are in the container, with its own mappings or the container's. What the
// mapping does not have is nobody's.
func TestIdmappedMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts: must be root")
	}
	dir := owned(t)
	joined := joinable(t, 300000)
	const list = "cd /rec; stat -c %n=%u:%g a b sub/c"
	bind := func(options ...string) specs.Mount {
		return specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: options}
	}
	with := func(m specs.Mount, uids, gids []specs.LinuxIDMapping) specs.Mount {
		m.UIDMappings, m.GIDMappings = uids, gids
		return m
	}
	join := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: joined})
		s.Linux.Resources = nil
	}
	for _, tc := range []struct {
		name, out string
		mount     specs.Mount
		change    func(*specs.Spec)
	}{
		{"no user namespace", "a=5:7\nb=6:65534\nsub/c=1001:2001\n", with(bind("rbind", "idmap"), ids(1001, 5, 2), ids(2001, 7, 1)), nil},
		{"no user namespace, recursive", "a=5:7\nb=6:65534\nsub/c=5:7\n", with(bind("rbind", "ridmap"), ids(1001, 5, 2), ids(2001, 7, 1)), nil},
		{"mappings alone", "a=5:7\nb=6:65534\nsub/c=1001:2001\n", with(bind("rbind"), ids(1001, 5, 2), ids(2001, 7, 1)), nil},
		{"several ranges", "a=50:7\nb=40:8\nsub/c=50:7\n", with(bind("rbind", "ridmap"), append(ids(1002, 40, 1), ids(1001, 50, 1)...), ids(2001, 7, 2)), nil},
		{"new user namespace, its own mapping", "a=1001:2001\nb=1002:2002\nsub/c=1001:2001\n", bind("rbind", "ridmap"), withUserNamespace},
		{"new user namespace, not mapped", "a=65534:65534\nb=65534:65534\nsub/c=65534:65534\n", bind("rbind"), withUserNamespace},
		{"new user namespace, another mapping", "a=5:7\nb=65534:65534\nsub/c=65534:65534\n", with(bind("rbind", "idmap"), ids(1001, 100005, 1), ids(2001, 100007, 1)), withUserNamespace},
		{"joined user namespace, its own mapping", "a=1001:2001\nb=1002:2002\nsub/c=65534:65534\n", bind("rbind", "idmap"), join},
		{"joined user namespace, another mapping", "a=5:7\nb=65534:65534\nsub/c=5:7\n", with(bind("rbind", "ridmap"), ids(1001, 300005, 1), ids(2001, 300007, 1)), join},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want(t, inside(t, list, func(s *specs.Spec) {
				if tc.change != nil {
					tc.change(s)
				}
				s.Mounts = append(s.Mounts, tc.mount)
			}), tc.out)
		})
	}
}

// TestIdmappedMountIsWritten: what a user of the container makes belongs on the disk to whom the mapping says.
func TestIdmappedMountIsWritten(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts: must be root")
	}
	dir := owned(t)
	for name, change := range map[string]func(*specs.Spec, *specs.Mount){
		"no user namespace": func(_ *specs.Spec, m *specs.Mount) {
			must(t, os.Chown(dir, 33, 44)) // nobody may make files in a directory of an id that is not mapped
			m.UIDMappings, m.GIDMappings = ids(33, 0, 1), ids(44, 0, 1)
		},
		"user namespace": func(s *specs.Spec, _ *specs.Mount) {
			must(t, os.Chown(dir, 0, 0))
			withUserNamespace(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			out := inside(t, "touch /rec/new && stat -c %u:%g /rec/new", func(s *specs.Spec) {
				m := specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: []string{"rbind", "idmap"}}
				change(s, &m)
				s.Mounts = append(s.Mounts, m)
			})
			want(t, out, "0:0\n")
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(dir, "new"), &st))
			if got := fmt.Sprintf("%s %d:%d", name, st.Uid, st.Gid); got != "no user namespace 33:44" && got != "user namespace 0:0" {
				t.Errorf("on the disk the file is of %s", got)
			}
			must(t, os.Remove(filepath.Join(dir, "new")))
		})
	}
}

// TestIdmapRefused: words where the kernel has only an errno, from either side.
func TestIdmapRefused(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){"no user namespace": nil, "user namespace": withUserNamespace} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, "exit 0")
			if change != nil {
				change(b.spec)
			}
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: "/proc/sys/kernel", Destination: "/rec", Options: []string{"bind", "idmap"}, UIDMappings: ids(0, 7, 1), GIDMappings: ids(0, 7, 1)})
			b.write()
			b.fails("open_tree /proc/sys/kernel: map ids: the file system does not support idmapped mounts", "run", "x")
		})
	}
}
