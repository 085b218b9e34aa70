package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// inPrivate calls f where the container's root is a mount at a path, as criu wants it: in a mount namespace that nobody
// else sees and that ends with the call.
func (r *restoring) inPrivate(f func(root string) error) error {
	root := filepath.Join(r.cmd.dir(r.id), "criu-root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return fmt.Errorf("make directory for the root: %w", err)
	}
	ended := make(chan error, 1)
	linux.GoThread(func() {
		ended <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
				return fmt.Errorf("cut mount namespace off: %w", err)
			}
			if err := unix.Mount(r.notes.Rootfs, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("bind root file system %s: %w", r.notes.Rootfs, err)
			}
			if err := r.makePoints(root); err != nil {
				return err
			}
			return f(root)
		}()
	})
	err := <-ended
	return errors.Join(err, os.Remove(root))
}

// makePoints makes the mount points that are missing in the root, as a start does.
func (r *restoring) makePoints(root string) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	defer unix.Close(dir)
	for _, mounts := range r.images.Mounts {
		var top uint64
		for _, m := range mounts {
			if m.Point == "/" {
				top = m.ID
			}
		}
		for _, m := range mounts {
			if m.Parent != top || m.Point == "/" {
				continue
			}
			isDir := true
			if source, ok := r.sources[m.Point]; ok {
				var st unix.Stat_t
				isDir = unix.Stat(source, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR
			}
			if err := makePoint(dir, m.Point, isDir); err != nil {
				return fmt.Errorf("make mount point %s: %w", m.Point, err)
			}
		}
	}
	return nil
}

// makePoint makes what is missing of a path below a root, one name at a time below a descriptor.
func makePoint(root int, point string, isDir bool) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	names := strings.Split(strings.Trim(point, "/"), "/")
	for i := range names {
		at := "/" + strings.Join(names[:i+1], "/")
		fd, err := unix.Openat2(root, at, &how)
		if err == nil {
			_ = unix.Close(fd)
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
		parent, err := unix.Openat2(root, filepath.Dir(at), &how)
		if err != nil {
			return err
		}
		if i < len(names)-1 || isDir {
			err = unix.Mkdirat(parent, names[i], 0o755)
		} else {
			err = unix.Mknodat(parent, names[i], unix.S_IFREG|0o644, 0)
		}
		_ = unix.Close(parent)
		if err != nil {
			return err
		}
	}
	return nil
}

// loopbackUp brings the loopback device of a new network namespace up, as a start does: criu leaves the namespace empty,
// and connections that it restores have to reach their addresses.
func (r *restoring) loopbackUp(pid int) error {
	if !hasNamespace(r.req.Spec, specs.NetworkNamespace) || namespacePath(r.req.Spec, specs.NetworkNamespace) != "" {
		return nil
	}
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	if err := notOwn(path, "net"); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	ns, err := openNS(path)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	rtnl, err := openRtnlIn(ns)
	if err != nil {
		return err
	}
	defer rtnl.Close()
	const lo = 1 // the index in every network namespace
	if _, err := rtnl.Do(unix.RTM_NEWLINK, 0, linkMessage(lo, unix.IFF_UP)); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// sealRoot makes the root read-only where config.json has it so: criu takes the root as it finds it, and it has to write
// there while it restores.
func (r *restoring) sealRoot(pid int) error {
	if r.req.Spec.Root == nil || !r.req.Spec.Root.Readonly {
		return nil
	}
	path := fmt.Sprintf("/proc/%d/ns/mnt", pid)
	if err := notOwn(path, "mnt"); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	ns, err := openNS(path)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	done := make(chan error, 1)
	linux.GoThread(func() {
		err := unix.Unshare(unix.CLONE_FS) // or a mount namespace cannot be entered
		if err == nil {
			err = unix.Setns(ns, unix.CLONE_NEWNS)
		}
		if err == nil {
			err = unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		}
		done <- err
	})
	if err := <-done; err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	return nil
}
