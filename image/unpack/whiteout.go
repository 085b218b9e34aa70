package unpack

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Names with a meaning, OCI image-spec layer.md and, for the second, AUFS.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// whiteoutEntry makes what a ".wh." name stands for, and drops AUFS's own bookkeeping (".wh..wh.plnk" and the like).
func (u *unpacker) whiteoutEntry(name string) (handled bool, err error) {
	if !strings.Contains(name, whiteoutPrefix) {
		return false, nil
	}
	base := path.Base(name)
	if base == whiteoutOpaque {
		return true, u.opaque(path.Dir(name))
	}
	for comp := range strings.SplitSeq(name, "/") {
		if isHidden(comp) {
			return true, nil
		}
	}
	hidden, ok := strings.CutPrefix(base, whiteoutPrefix)
	if !ok {
		return false, nil
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return true, refuse("a whiteout of %q", hidden)
	}
	return true, u.whiteout(path.Dir(name), hidden)
}

func (u *unpacker) opaque(dir string) error {
	fd, real, err := u.tree.dir(dir, true)
	if err != nil {
		return err
	}
	if real == "." {
		u.info.OpaqueRoot = true
		return nil
	}
	return setOpaque(fd)
}

// whiteout hides base of the layers below. What this layer itself has at that name stays (whiteouts apply to the layers
// below only, whatever the order in the tar); a directory then no longer merges with the one below, and inherits
// nothing from it.
func (u *unpacker) whiteout(dir, base string) error {
	parent, real, err := u.tree.dir(dir, true)
	if err != nil {
		return err
	}
	err = unix.Mknodat(parent, base, unix.S_IFCHR, 0)
	if err == nil {
		u.hiding[real] = true
		u.info.Inodes++
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("mknod whiteout: %w", err)
	}
	fd, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	delete(u.implied, path.Join(real, base))
	return setOpaque(fd)
}

// setOpaque cuts a directory off from the layers below. fd may be O_PATH.
func setOpaque(fd int) error {
	if err := unix.Setxattr(fdPath(fd), opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("set %s: %w", opaqueXattr, err)
	}
	return nil
}
