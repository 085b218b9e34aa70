package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// mountSource begins the source of our mounts in /proc/self/mountinfo; the image's digest follows. So the kernel itself
// remembers which image is mounted where, across the daemon's death, too.
const mountSource = "cri-mini-image:"

// mountOwner makes a mount point the one to whom the layers are lent.
func mountOwner(dir string) string { return "mount " + dir }

// Mount shows an image (by id) at a directory that exists, read-only, without setuid and devices. Its layers stay until
// Unmount, or until after a plain umount(8) the next call of the two or the next start finds the mount gone.
func (s *Store) Mount(imageID, dir string) error {
	if dir = filepath.Clean(dir); !filepath.IsAbs(dir) {
		return fmt.Errorf("mount image %s: %q is not an absolute path", imageID, dir)
	}
	fi, err := os.Stat(dir)
	if err == nil && !fi.IsDir() {
		err = fmt.Errorf("%s: %w", dir, ErrNotDirectory)
	}
	if err != nil {
		return fmt.Errorf("mount image %s: %w", imageID, err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // as mountinfo names it
		return fmt.Errorf("mount image %s: %w", imageID, err)
	}
	s.mounts.Lock()
	defer s.mounts.Unlock()
	if err := s.settleMounts(); err != nil {
		return err
	}
	if id, ok := s.mounted[dir]; ok {
		if id == imageID {
			return nil
		}
		return fmt.Errorf("mount image %s: %s shows image %s already: unmount that first", imageID, dir, id)
	}
	rootfs, err := s.Lend(imageID, mountOwner(dir))
	if err != nil {
		return err
	}
	if err := mountLayers(imageID, append(rootfs.Lower, s.disk.Bottom()), dir); err != nil {
		return errors.Join(fmt.Errorf("mount image %s on %s: %w", imageID, dir, err), s.Return(imageID, mountOwner(dir)))
	}
	s.mounted[dir] = imageID
	return nil
}

// Unmount ends a Mount. What still has files open in it keeps them. Where no image is mounted it fails.
func (s *Store) Unmount(dir string) error {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	s.mounts.Lock()
	defer s.mounts.Unlock()
	if err := s.settleMounts(); err != nil {
		return err
	}
	if _, ok := s.mounted[dir]; !ok {
		return fmt.Errorf("unmount %s: no image is mounted there: %w", dir, ErrNotFound)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return s.settleMounts()
}

// settleMounts makes the lends agree with the kernel's mounts. The caller holds mounts.
func (s *Store) settleMounts() error {
	list, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("overlay"))
	if err != nil {
		return fmt.Errorf("look for mounted images: %w", err)
	}
	now := map[string]string{}
	for _, m := range list {
		if id, ours := strings.CutPrefix(m.Source, mountSource); ours {
			if _, err := digest.Parse(id); err == nil {
				now[m.Mountpoint] = id
			}
		}
	}
	var errs []error
	for dir, id := range s.mounted {
		if now[dir] != id {
			errs = append(errs, s.Return(id, mountOwner(dir)))
			delete(s.mounted, dir)
		}
	}
	for dir, id := range now {
		if _, ok := s.mounted[dir]; ok {
			continue
		}
		// One of another daemon's images, in the same mount namespace, is not here.
		if _, err := s.Lend(id, mountOwner(dir)); err == nil {
			s.mounted[dir] = id
		} else if !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mountLayers mounts directories over each other, the top first.
func mountLayers(imageID string, lower []string, dir string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlayfs: %w", err)
	}
	defer unix.Close(fd)
	for _, l := range lower {
		err := unix.FsconfigSetString(fd, "lowerdir+", l)
		if errors.Is(err, unix.EINVAL) { // before Linux 6.7
			return mountOld(imageID, lower, dir)
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w", l, err)
		}
	}
	if err := errors.Join(unix.FsconfigSetString(fd, "source", mountSource+imageID), unix.FsconfigSetFlag(fd, "ro"), unix.FsconfigCreate(fd)); err != nil {
		return fmt.Errorf("make overlay: %w", err)
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// mountOld takes as many layers as fit into the one page that mount(2) copies.
func mountOld(imageID string, lower []string, dir string) error {
	options := "lowerdir=" + strings.Join(lower, ":")
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers are more than this kernel takes in one mount: Linux 6.7 or later does", len(lower))
	}
	return unix.Mount(mountSource+imageID, dir, "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, options)
}
