package store

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// maker writes a fix-up layer. Everything in it was made by it, so that a path without symlinks is enough to stay in.
type maker struct {
	st    stack
	fd    int
	made  []string        // directories
	attrs map[string]*hit // where a directory's attributes are not those of what shows in the stack
	info  unpack.Info
}

func newMaker(st stack, dir string) (*maker, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &maker{st: st, fd: fd, made: []string{"."}, attrs: make(map[string]*hit), info: unpack.Info{Inodes: 1, Size: 4096, Entries: 1}}, nil
}

func (m *maker) close() { unix.Close(m.fd) }

func (m *maker) open(p string, flags int) (int, error) {
	fd, err := unix.Openat2(m.fd, p, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, fmt.Errorf("fix-up layer: open %q: %w", p, err)
	}
	return fd, nil
}

// mkdirAll makes a directory and returns its path once more, for inDir.
func (m *maker) mkdirAll(p string) (string, error) {
	if p == "." {
		return p, nil
	}
	if fd, err := m.open(p, unix.O_PATH|unix.O_DIRECTORY); err == nil {
		return p, unix.Close(fd)
	}
	if _, err := m.mkdirAll(path.Dir(p)); err != nil {
		return "", err
	}
	err := m.inDir(p, func(dir int, base string) error { return unix.Mkdirat(dir, base, 0o700) })
	if err != nil {
		return "", fmt.Errorf("fix-up layer: mkdir %q: %w", p, err)
	}
	m.made = append(m.made, p)
	m.info.Inodes++
	m.info.Size += 4096
	return p, nil
}

// inDir calls do with the open directory of p and the last component.
func (m *maker) inDir(p string, do func(dir int, base string) error) error {
	dir, err := m.open(path.Dir(p), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return do(dir, path.Base(p))
}

// place makes one name, in place of another that an earlier layer's move or link left there.
func (m *maker) place(p string, do func(dir int, base string) error) error {
	if _, err := m.mkdirAll(path.Dir(p)); err != nil {
		return err
	}
	err := m.inDir(p, func(dir int, base string) error {
		err := do(dir, base)
		if errors.Is(err, unix.EEXIST) {
			if err := unix.Unlinkat(dir, base, 0); err != nil {
				return err
			}
			err = do(dir, base)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("fix-up layer: %q: %w", p, err)
	}
	m.info.Entries++
	return nil
}

func (m *maker) link(p string, h *hit) error {
	fd, err := m.st.open(h, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return m.place(p, func(dir int, base string) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir, base, unix.AT_SYMLINK_FOLLOW)
	})
}

func (m *maker) whiteout(p string) error {
	m.info.Inodes++
	return m.place(p, func(dir int, base string) error { return unix.Mknodat(dir, base, unix.S_IFCHR, 0) })
}

// list names the entries of a directory of a level.
func (m *maker) list(level int, p string) ([]string, error) {
	fd, err := m.st.open(&hit{level: level, path: p}, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	return f.Readdirnames(-1)
}

// copyAttrs gives a directory the attributes of h; without one, those that unpack gives to implied directories.
func (m *maker) copyAttrs(p string, h *hit) error {
	fd, err := m.open(p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mode, times := uint32(0o755), []unix.Timespec{{}, {}}
	if h != nil && h.kind() == unix.S_IFDIR {
		if err := unix.Fchown(fd, int(h.Uid), int(h.Gid)); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
		if err := m.copyXattrs(fd, h); err != nil {
			return err
		}
		mode, times = h.Mode&0o7777, []unix.Timespec{h.Atim, h.Mtim}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return unix.UtimesNanoAt(fd, ".", times, 0)
}

// copyXattrs leaves overlayfs's own out: an opaque directory below does not make the one on top of it opaque.
func (m *maker) copyXattrs(to int, h *hit) error {
	from, err := m.st.open(h, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		n, err := unix.Fgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("copy extended attribute %q: %w", name, err)
		}
	}
	return nil
}
