package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const blockSize = 4096

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// root applies the attributes of a "./" entry.
func (u *unpacker) root(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return refuse("the root is not a directory")
	}
	return u.describe(u.tree.root, ".", hdr)
}

func (u *unpacker) directory(at *place, hdr *tar.Header) error {
	err := unix.Mkdirat(at.dirfd, at.base, 0o700)
	hides := false
	if errors.Is(err, unix.EEXIST) {
		var was kind
		if was, err = u.kindOf(at); err != nil {
			return err
		}
		if was == kindDir {
			return u.describeDir(at, hdr, false)
		}
		// A file or whiteout at this name had taken away what the layers below have here; the directory starts empty.
		hides = true
		if err := u.rec.unlink(at.dirfd, at.base); err != nil {
			return err
		}
		err = unix.Mkdirat(at.dirfd, at.base, 0o700)
	}
	if err != nil {
		return fmt.Errorf("mkdir: %w", err)
	}
	u.info.Inodes++
	u.info.Size += blockSize
	return u.describeDir(at, hdr, hides)
}

func (u *unpacker) describeDir(at *place, hdr *tar.Header, hides bool) error {
	fd, err := unix.Openat(at.dirfd, at.base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if hides {
		if err := setOpaque(fd); err != nil {
			return err
		}
	}
	return u.describe(fd, at.real, hdr)
}

// describe gives a directory its own attributes; from now on it is not implied.
func (u *unpacker) describe(fd int, real string, hdr *tar.Header) error {
	delete(u.implied, real)
	u.times[real] = modTime(hdr)
	if err := unix.Fchownat(fd, "", hdr.Uid, hdr.Gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := u.setXattrs(fdPath(fd), unix.Setxattr, hdr); err != nil {
		return err
	}
	return chmodFD(fd, uint32(hdr.Mode)&0o7777)
}

// regular writes a file. Owner before mode and security.capability: the kernel clears setuid bits and capabilities on
// chown(2).
func (u *unpacker) regular(at *place, hdr *tar.Header, content io.Reader) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at.dirfd, at.base, flags, 0o600)
	if errors.Is(err, unix.EEXIST) {
		if err := u.clear(at); err != nil {
			return err
		}
		fd, err = unix.Openat(at.dirfd, at.base, flags, 0o600)
	}
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer unix.Close(fd)
	if !isSparse(hdr) { // what the tar has of a sparse file is its recipe
		if err := u.rec.content(at.real, fd, hdr.Size); err != nil {
			return err
		}
	}
	if err := u.write(fd, hdr, content); err != nil {
		return err
	}
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	set := func(_, name string, value []byte, flags int) error { return unix.Fsetxattr(fd, name, value, flags) }
	if err := u.setXattrs("", set, hdr); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	u.info.Inodes++
	u.info.Size += (hdr.Size + blockSize - 1) / blockSize * blockSize
	return utimes(at.dirfd, at.base, accessTime(hdr), modTime(hdr))
}

// write copies the content. A sparse entry's runs of zeros become holes again.
func (u *unpacker) write(fd int, hdr *tar.Header, content io.Reader) error {
	if u.bytes += hdr.Size; u.bytes > u.limits.Bytes {
		return refuse("the layer's files hold more than %d bytes", u.limits.Bytes)
	}
	sparse := isSparse(hdr)
	for left := hdr.Size; left > 0; {
		chunk := (*u.buf)[:min(left, int64(len(*u.buf)))]
		n, err := io.ReadFull(content, chunk)
		if err != nil {
			return fmt.Errorf("read content: %w", err)
		}
		left -= int64(n)
		if sparse && allZero(chunk) {
			if _, err := unix.Seek(fd, int64(n), io.SeekCurrent); err != nil {
				return err
			}
			continue
		}
		if err := writeFull(fd, chunk); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	if sparse {
		return unix.Ftruncate(fd, hdr.Size)
	}
	return nil
}

func writeFull(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		p = p[max(0, n):]
	}
	return nil
}

func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func allZero(p []byte) bool {
	for len(p) >= 64 {
		var or byte
		for _, b := range p[:64] {
			or |= b
		}
		if or != 0 {
			return false
		}
		p = p[64:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func (u *unpacker) symlink(at *place, hdr *tar.Header) error {
	if hdr.Linkname == "" {
		return refuse("a symlink to nothing")
	}
	make := func() error { return unix.Symlinkat(hdr.Linkname, at.dirfd, at.base) }
	if err := u.create(at, make); err != nil {
		return fmt.Errorf("symlink: %w", err)
	}
	return u.finishNode(at, hdr)
}

func (u *unpacker) node(at *place, hdr *tar.Header) error {
	mode, dev := uint32(hdr.Mode)&0o7777, 0
	switch hdr.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	case tar.TypeChar:
		mode |= unix.S_IFCHR
		if hdr.Devmajor == 0 && hdr.Devminor == 0 {
			return refuse("a character device 0:0, which overlayfs takes for a whiteout")
		}
	}
	if hdr.Typeflag != tar.TypeFifo {
		dev = int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
	}
	make := func() error { return unix.Mknodat(at.dirfd, at.base, mode, dev) }
	if err := u.create(at, make); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if err := u.finishNode(at, hdr); err != nil {
		return err
	}
	// After the chown in finishNode, and because of the umask. The name is ours and no symlink.
	return unix.Fchmodat(at.dirfd, at.base, mode&0o7777, 0)
}

// finishNode gives owner, attributes and times to something that cannot be opened.
func (u *unpacker) finishNode(at *place, hdr *tar.Header) error {
	u.info.Inodes++
	if err := unix.Fchownat(at.dirfd, at.base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := u.setXattrs(fdPath(at.dirfd)+"/"+at.base, unix.Lsetxattr, hdr); err != nil {
		return err
	}
	return utimes(at.dirfd, at.base, accessTime(hdr), modTime(hdr))
}

// create calls make, and once more after clearing the name if something is there.
func (u *unpacker) create(at *place, make func() error) error {
	err := make()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := u.clear(at); err != nil {
		return err
	}
	return make()
}

// clear removes what an earlier entry of this layer left at a name: in a tar the last one wins. It may renew at.dirfd.
func (u *unpacker) clear(at *place) error {
	was, err := u.kindOf(at)
	if err != nil {
		return err
	}
	if was == kindDir {
		// Cached fds may be of what goes now. Forgetting them closes the parent's, too: it is opened anew.
		u.tree.forget()
		if at.dirfd, _, err = u.tree.dir(path.Dir(at.real), false); err != nil {
			return err
		}
		return u.removeAll(at.dirfd, at.base)
	}
	return u.rec.unlink(at.dirfd, at.base)
}

type kind int

const (
	kindOther kind = iota
	kindDir
	kindWhiteout
)

func (u *unpacker) kindOf(at *place) (kind, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(at.dirfd, at.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return kindOther, err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return kindDir, nil
	case isWhiteout(&st):
		return kindWhiteout, nil
	}
	return kindOther, nil
}
