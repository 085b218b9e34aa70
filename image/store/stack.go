package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// stack looks into layers as overlayfs would show them, without a mount: no privilege, no limit on layers or option
// strings, and it can ask what was visible below a given layer. Paths are relative, "." is the root.
type stack []*level // the lowest first

type level struct {
	*layer
	fd      int // of the files, O_PATH
	implied map[string]bool
}

// openStack opens the directories of the layers that show: an opaque root hides what is below it, an empty layer adds
// nothing, and of a layer that comes twice the upper one says all (overlayfs refuses it twice).
func (s *Store) openStack(shown []*layer) (stack, error) {
	var st stack
	for _, l := range shown {
		fd, err := unix.Open(s.path("l", l.id, "f"), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			st.close()
			return nil, fmt.Errorf("open layer %s: %w", l.Key, err)
		}
		lv := &level{layer: l, fd: fd, implied: make(map[string]bool, len(l.Info.Implied))}
		for _, p := range l.Info.Implied {
			lv.implied[string(p)] = true
		}
		st = append(st, lv)
	}
	return st, nil
}

func (st stack) close() {
	for _, l := range st {
		unix.Close(l.fd)
	}
}

// look tells what one layer has at p: nil if nothing. stops means that no layer below shows at p.
func (l *level) look(p string) (found *unix.Stat_t, stops bool, err error) {
	at := l.fd
	defer func() {
		if at != l.fd {
			unix.Close(at)
		}
	}()
	var attr unix.Stat_t
	if p == "." {
		err := unix.Fstat(at, &attr)
		return &attr, false, err
	}
	comps := strings.Split(p, "/")
	for i, comp := range comps {
		fd, err := unix.Openat(at, comp, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil, stops, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("look up %q in layer %s: %w", p, l.Key, err)
		}
		if at != l.fd {
			unix.Close(at)
		}
		at = fd
		if err := unix.Fstat(at, &attr); err != nil {
			return nil, false, err
		}
		isDir := attr.Mode&unix.S_IFMT == unix.S_IFDIR
		switch last := i == len(comps)-1; {
		case attr.Mode&unix.S_IFMT == unix.S_IFCHR && attr.Rdev == 0: // a whiteout
			return nil, true, nil
		case !isDir && last:
			return &attr, true, nil
		case !isDir:
			return nil, true, nil
		}
		stops = stops || isOpaque(at)
	}
	return &attr, stops, nil
}

func isOpaque(fd int) bool {
	var value [1]byte
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", fd), "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// hit is what shows at a path.
type hit struct {
	unix.Stat_t
	level int
	path  string
	// bare is a directory that no layer describes: it has the attributes that unpack gives to implied ones.
	bare bool
	// covered: a higher layer has the path as an implied directory, which shows instead.
	covered bool
}

func (h *hit) kind() uint32 { return h.Mode & unix.S_IFMT }

// find tells what shows at p in the layers from top down, without following a symlink on the way. An implied directory
// is looked through: what it stands for is in a layer below, a directory or, in images that merge /lib into /usr/lib, a
// symlink to one.
func (st stack) find(top int, p string) (*hit, error) {
	var implied *hit
	for i := top; i >= 0; i-- {
		attr, stops, err := st[i].look(p)
		if err != nil {
			return nil, err
		}
		if attr != nil {
			h := &hit{Stat_t: *attr, level: i, path: p, covered: implied != nil}
			isDir := h.kind() == unix.S_IFDIR
			switch {
			case isDir && st[i].implied[p]:
				if implied == nil {
					h.bare = true
					implied = h
				}
			case isDir || implied == nil || h.kind() == unix.S_IFLNK:
				return h, nil
			default: // a file below an implied directory: the directory hides it
				return implied, nil
			}
		}
		if stops {
			break
		}
	}
	if implied == nil {
		return nil, fmt.Errorf("%q: %w", p, fs.ErrNotExist)
	}
	return implied, nil
}

// resolve follows symlinks inside the image, the last component too if follow is set. The hit's path has none left. If
// something is missing, rest is the real path that it would have, and the error is fs.ErrNotExist.
func (st stack) resolve(top int, p string, follow bool) (h *hit, rest string, err error) {
	at, todo := ".", strings.Split(p, "/")
	if h, err = st.find(top, "."); err != nil {
		return nil, p, err
	}
	for links := 0; len(todo) > 0; {
		comp := todo[0]
		todo = todo[1:]
		if comp == "" || comp == "." {
			continue
		}
		next := path.Join(at, comp)
		if comp == ".." {
			next = path.Join("/", at, "..")[1:] // at the root stays there
			next = path.Clean(next)
		}
		if h, err = st.find(top, next); err != nil {
			return nil, path.Clean(path.Join(append([]string{next}, todo...)...)), err
		}
		if h.kind() != unix.S_IFLNK || (len(todo) == 0 && !follow) {
			at = next
			continue
		}
		if links++; links > 40 {
			return nil, p, fmt.Errorf("%q: %w", p, unix.ELOOP)
		}
		target, err := st.readlink(h)
		if err != nil {
			return nil, p, err
		}
		if strings.HasPrefix(target, "/") {
			at = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return h, at, nil
}

// open opens a hit in its layer.
func (st stack) open(h *hit, flags int) (int, error) {
	fd, err := unix.Openat2(st[h.level].fd, h.path, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return -1, fmt.Errorf("open %q in layer %s: %w", h.path, st[h.level].Key, err)
	}
	return fd, nil
}

func (st stack) readlink(h *hit) (string, error) {
	fd, err := st.open(h, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(n, 0)]), err
}
