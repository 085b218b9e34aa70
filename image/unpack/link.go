package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// errNoTarget says that a hard link's target is not in this layer.
var errNoTarget = errors.New("hard link target is not in this layer")

// hardLink links to a file of this layer, or records the link for the image's fix-up layer. The header's other fields
// repeat the target's and are not applied again.
func (u *unpacker) hardLink(at *place, hdr *tar.Header) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", hdr.Linkname, err)
	}
	if target == "." {
		return refuse("a hard link to the root")
	}
	if path.Clean(target) == at.real {
		return nil // a link to itself says nothing
	}
	err = u.link(at.real, target, true)
	if !errors.Is(err, errNoTarget) {
		return err
	}
	// The name may not keep what an earlier entry put there.
	if at.dirfd, _, err = u.tree.dir(path.Dir(at.real), true); err != nil {
		return err
	}
	if err := u.clear(at); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	u.info.Links = append(u.info.Links, Link{Name: Path(at.real), Target: Path(target)})
	return nil
}

// link makes name (resolved) another name of target (as the tar says). replace lets it take a name that is in use.
func (u *unpacker) link(name, target string, replace bool) error {
	fd, err := u.openTarget(target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case isWhiteout(&st):
		return errNoTarget
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return refuse("a hard link to the directory %q", target)
	}
	parent, real, err := u.tree.dir(path.Dir(name), true)
	if err != nil {
		return err
	}
	at := &place{dirfd: parent, base: path.Base(name), real: path.Join(real, path.Base(name))}
	// By fd: the walk above may have closed the target's parent. AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the /proc form
	// needs none, open(2).
	make := func() error {
		return unix.Linkat(unix.AT_FDCWD, fdPath(fd), at.dirfd, at.base, unix.AT_SYMLINK_FOLLOW)
	}
	if replace {
		err = u.create(at, make)
	} else {
		err = make()
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	return nil
}

// openTarget opens a hard link's target without following its last component: a symlink may have two names.
func (u *unpacker) openTarget(target string) (int, error) {
	parent, _, err := u.tree.dir(path.Dir(target), false)
	if err == nil {
		var fd int
		if fd, err = unix.Openat(parent, path.Base(target), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
			return fd, nil
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return -1, errNoTarget
	}
	return -1, err
}

// retryLinks goes over the unresolved links at the end of the tar: a target may have come after its link, and a later
// entry may have taken a link's name.
func (u *unpacker) retryLinks() error {
	var still []Link
	for _, l := range u.info.Links {
		err := u.link(string(l.Name), string(l.Target), false)
		switch {
		case errors.Is(err, errNoTarget):
			if taken, err := u.exists(string(l.Name)); err != nil {
				return entryError(string(l.Name), err)
			} else if !taken {
				still = append(still, l)
			}
		case errors.Is(err, unix.EEXIST):
		case err != nil:
			return entryError(string(l.Name), err)
		}
	}
	u.info.Links = still
	return nil
}

func (u *unpacker) exists(name string) (bool, error) {
	fd, err := u.openTarget(name)
	if errors.Is(err, errNoTarget) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, unix.Close(fd)
}
