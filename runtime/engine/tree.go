package engine

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// inMountNS runs f on a thread that has entered the mount namespace of a process but keeps our credentials.
// The thread is thrown away.
func inMountNS(pid int, f func() error) error {
	done := make(chan error, 1)
	linux.GoThread(func() {
		done <- func() error {
			fd, err := openNS("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare fs: %w", err)
			}
			if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter mount namespace of %d: %w", pid, err)
			}
			return f()
		}()
	})
	return <-done
}

func (r *run) openTree(op *plan.Op) error {
	userns := r.slot(op.Slot[1])
	return r.in(op.Num[1], func() error {
		fd, err := cloneTree(op.Str[0], op.Num[0], op.Num[2], userns)
		if errors.Is(err, unix.ENOENT) && op.Num[0]&plan.BindOptional != 0 {
			return nil // the slot stays empty, and init leaves the mount out
		}
		if err != nil {
			return err
		}
		r.fill(op.Slot[0], fd)
		return nil
	})
}

// mapNS makes the user namespace whose maps a mount takes.
func (r *run) mapNS(op *plan.Op) error {
	f, err := linux.NewUserNS(func(pid int) error { return writeIDMaps(pid, op) })
	if err != nil {
		return err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		r.fill(op.Slot[0], fd)
	}
	return err
}

// cloneTree clones a mount, sets its propagation and, with a user namespace, its id map, before anybody sees it.
func cloneTree(source string, flags, propagation uint64, userns int) (int, error) {
	how := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if flags&plan.BindRecursive != 0 {
		how |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, how)
	if err != nil {
		return -1, err
	}
	if err := adjustTree(fd, flags, propagation, userns); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func adjustTree(fd int, flags, propagation uint64, userns int) error {
	at := uint(unix.AT_EMPTY_PATH)
	if flags&plan.BindRecursive != 0 {
		at |= unix.AT_RECURSIVE
	}
	if p := propagation &^ plan.PropRec; p != 0 {
		if err := unix.MountSetattr(fd, "", at, &unix.MountAttr{Propagation: p}); err != nil {
			return fmt.Errorf("set propagation: %w", err)
		}
	}
	if userns >= 0 {
		if flags&plan.BindMapRecursive == 0 {
			at &^= unix.AT_RECURSIVE
		}
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}
		if err := unix.MountSetattr(fd, "", at, attr); err != nil {
			return unmapped(err)
		}
	}
	return nil
}

// unmapped words why a mount could not be idmapped.
func unmapped(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("map ids: the file system does not support idmapped mounts: %w", err)
	}
	return fmt.Errorf("map ids: %w", err)
}
