package linux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Ways in which a file was sealed.
const (
	SealOverlay = "overlay" // read-only overlay mount that no path leads to
	SealMemfd   = "memfd"   // sealed copy in memory
)

// SealFile returns a descriptor from which the program at path can be executed
// (execveat(2), AT_EMPTY_PATH), and through which nobody can change it: a
// container that becomes root opens /proc/<pid>/exe of a runtime process that
// entered it and overwrites the runtime on the host (CVE-2019-5736).
//
// The first choice is a detached read-only overlay mount of the program's
// directory: no copy, and its pages are shared by all that run it. Where overlay
// is refused, the program is copied into a sealed memfd. how says which it was.
// The descriptor is close-on-exec. The file is the one that path named at the
// time of the call; replacing it by rename later changes nothing.
func SealFile(path string) (file *os.File, how string, err error) {
	file, overlayErr := sealOverlay(path)
	if overlayErr == nil {
		return file, SealOverlay, nil
	}
	file, err = sealMemfd(path)
	if err != nil {
		return nil, "", errors.Join(err, overlayErr)
	}
	return file, SealMemfd, nil
}

// SealSelf seals the running program. One whose file was deleted or replaced
// since its start is copied from /proc/self/exe, which still is the old one.
func SealSelf() (file *os.File, how string, err error) {
	const self = "/proc/self/exe"
	path, err := os.Readlink(self)
	if err != nil {
		return nil, "", err
	}
	if strings.HasSuffix(path, " (deleted)") {
		file, err = sealMemfd(self)
		return file, SealMemfd, err
	}
	return SealFile(path)
}

// sealOverlay mounts the directory of path as the upper one of two lower layers
// and opens the program in it. The mount is never attached anywhere: it lives
// as long as the descriptor. Opening the file for writing gives EROFS, because
// an overlay without an upper layer cannot be written, whatever the mount flags.
func sealOverlay(path string) (*os.File, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("seal %s by overlay: %w", path, err)
	}
	mount, err := overlayOf(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("seal %s by overlay: %w", path, err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, filepath.Base(path), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s in its overlay: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// overlayOf makes a detached read-only overlay of a directory. Overlay wants two
// layers when there is no upper one: any other directory does, and one of sysfs
// is there already.
func overlayOf(dir string) (int, error) {
	if mount, err := lowerOnlyOverlay(dir, "/sys/kernel"); err == nil {
		return mount, nil
	}
	empty, err := os.MkdirTemp("", "cri-mini-seal-")
	if err != nil {
		return -1, err
	}
	defer os.Remove(empty)
	return lowerOnlyOverlay(dir, empty)
}

// lowerOnlyOverlay makes a detached read-only overlay of two directories and
// returns its mount descriptor.
func lowerOnlyOverlay(top, bottom string) (int, error) {
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlay context: %w", err)
	}
	defer unix.Close(ctx)
	err = unix.FsconfigSetString(ctx, "lowerdir+", top)
	if err == nil {
		err = unix.FsconfigSetString(ctx, "lowerdir+", bottom)
	} else { // before Linux 6.7: one string, in which colons are escaped
		escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
		err = unix.FsconfigSetString(ctx, "lowerdir", escape.Replace(top)+":"+escape.Replace(bottom))
	}
	if err != nil {
		return -1, fmt.Errorf("set overlay layers %s and %s: %w", top, bottom, err)
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("create overlay of %s: %w", top, err)
	}
	mount, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return -1, fmt.Errorf("mount overlay of %s: %w", top, err)
	}
	return mount, nil
}

// sealMemfd copies the program into a memfd and seals it against every change.
func sealMemfd(path string) (*os.File, error) {
	source, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("seal by memfd: %w", err)
	}
	defer source.Close()
	memfd, err := executableMemfd(filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("seal %s by memfd: %w", path, err)
	}
	defer memfd.Close()
	if _, err := io.Copy(memfd, source); err != nil {
		return nil, fmt.Errorf("copy %s into a memfd: %w", path, err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(memfd.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal the memfd of %s: %w", path, err)
	}
	// The descriptor handed on is a read-only one, so that exec never finds
	// the file open for writing (ETXTBSY).
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", memfd.Fd()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reopen the memfd of %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// executableMemfd asks for an executable memfd by name (MFD_EXEC, Linux 6.3),
// since vm.memfd_noexec may have made plain ones not executable.
func executableMemfd(name string) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "memfd:"+name), nil
}
