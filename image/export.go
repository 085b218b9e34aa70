package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// Export copies the files of an image (by id) to a directory that is empty or made, with owners, modes, times, links,
// devices and extended attributes: a root file system that belongs to nobody's store. What was copied when it fails
// stays.
func (s *Store) Export(ctx context.Context, imageID, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("export image %s: %w", imageID, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		return errors.Join(fmt.Errorf("export image %s: the directory %s is not empty", imageID, dir), err)
	}
	// The layers are laid over each other in a mount namespace that ends with the copy.
	at, err := os.MkdirTemp("", "cri-mini-export-")
	if err != nil {
		return fmt.Errorf("export image %s: %w", imageID, err)
	}
	defer os.Remove(at)
	owner := "export " + at
	rootfs, err := s.Lend(imageID, owner)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Return(imageID, owner)) }()
	done := make(chan error, 1)
	linux.GoThread(func() {
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("cut mount namespace off: %w", err)
			}
			if err := mountLayers(imageID, append(rootfs.Lower, s.disk.Bottom()), at); err != nil {
				return err
			}
			c := copier{ctx: ctx, links: map[inode]string{}}
			return c.tree(at, dir)
		}()
	})
	if err := <-done; err != nil {
		return fmt.Errorf("export image %s to %s: %w", imageID, dir, err)
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// copier copies a tree that nobody changes to a directory that nobody else has.
type copier struct {
	ctx   context.Context //nolint:containedctx // the copier is one call
	links map[inode]string
}

// tree copies a directory with all that is in it; its own attributes come last, for they may forbid writing.
func (c *copier) tree(from, to string) error {
	names, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(filepath.Join(from, n.Name()), filepath.Join(to, n.Name())); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("stat %s: %w", from, err)
	}
	return attributes(from, to, &st)
}

func (c *copier) entry(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("stat %s: %w", from, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		return c.tree(from, to)
	}
	if st.Nlink > 1 {
		if first, ok := c.links[inode{st.Dev, st.Ino}]; ok {
			return os.Link(first, to)
		}
		c.links[inode{st.Dev, st.Ino}] = to
	}
	var err error
	switch kind {
	case unix.S_IFREG:
		err = copyFile(from, to)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	default:
		err = unix.Mknod(to, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return attributes(from, to, &st)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) // copy_file_range(2) where the file systems can
	return errors.Join(err, out.Close())
}

// attributes come in the order in which one takes the former away: a change of owner clears setuid and capabilities.
func attributes(from, to string, st *unix.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return fmt.Errorf("chmod %s: %w", to, err)
		}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times of %s: %w", to, err)
	}
	return nil
}

// copyXattrs leaves overlayfs's own out, and what the target cannot hold.
func copyXattrs(from, to string) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(from, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes of %s: %w", from, err)
	}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:k], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("copy extended attribute %s of %s: %w", name, from, err)
		}
	}
	return nil
}
