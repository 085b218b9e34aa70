package unpack

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxSymlinks = 40  // as the kernel, path_resolution(7)
	maxCached   = 256 // directory fds kept open between walks
	maxSteps    = 768 // components of one walk, symlinks expanded: bounds the fds that one walk opens
	maxDepth    = 512 // components of one name; the recursion of removeAll is bounded by it
)

// tree walks and makes directories below one root. Directory fds are cached, since tars list a directory's entries
// together; a cached fd stays right until something is removed, and then the whole cache is dropped.
type tree struct {
	root  int
	dirs  map[string]int    // resolved path → O_PATH fd
	alias map[string]string // path as asked → resolved path
	// onMade is told of each directory that was made because an entry needed it, and whether it covers a whiteout.
	onMade func(real string, covers bool)
	// onCovers makes such a directory hide what the layers below have there.
	onCovers func(fd int) error
}

func openTree(dir string) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &tree{root: fd, dirs: make(map[string]int), alias: make(map[string]string)}, nil
}

func (t *tree) close() {
	t.forget()
	unix.Close(t.root)
}

func (t *tree) forget() {
	for _, fd := range t.dirs {
		unix.Close(fd)
	}
	clear(t.dirs)
	clear(t.alias)
}

// cleanName makes a tar name relative and takes "." and inner ".." out of it. A name that climbs above the root is
// refused: no honest tool writes one.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", refuse("name holds a NUL byte")
	}
	rel := path.Clean(strings.TrimLeft(name, "/"))
	if rel == ".." || strings.HasPrefix(rel, "../") {
		return "", refuse("name leads out of the layer's root")
	}
	if strings.Count(rel, "/") >= maxDepth {
		return "", refuse("name has more than %d components", maxDepth)
	}
	return rel, nil
}

// dir opens the directory that p leads to, with symlinks resolved inside the root (an absolute one starts at the root,
// ".." at the root stays there). Missing directories are made when make is set. The fd is the tree's and holds until
// the next call; real is the path without symlinks.
func (t *tree) dir(p string, create bool) (fd int, real string, err error) {
	if real, ok := t.alias[p]; ok {
		return t.cached(real), real, nil
	}
	if len(t.dirs) > maxCached || len(t.alias) > maxCached {
		t.forget()
	}
	w := walk{tree: t, rest: strings.Split(p, "/"), create: create}
	for steps := 0; len(w.rest) > 0; steps++ {
		if steps == maxSteps {
			return -1, "", unix.ELOOP
		}
		comp := w.rest[0]
		w.rest = w.rest[1:]
		if err := w.step(comp); err != nil {
			return -1, "", fmt.Errorf("directory %q: %w", path.Join(w.real(), comp), err)
		}
	}
	real = w.real()
	t.alias[p] = real
	return t.cached(real), real, nil
}

func (t *tree) cached(real string) int {
	if real == "." {
		return t.root
	}
	return t.dirs[real]
}

// walk is one resolution in progress.
type walk struct {
	*tree
	at     []string // components resolved so far
	rest   []string // components still to resolve
	links  int
	create bool
}

func (w *walk) real() string {
	if len(w.at) == 0 {
		return "."
	}
	return strings.Join(w.at, "/")
}

func (w *walk) step(comp string) error {
	switch comp {
	case "", ".":
		return nil
	case "..":
		w.at = w.at[:max(0, len(w.at)-1)]
		return nil
	}
	if len(w.at) >= maxDepth {
		return unix.ENAMETOOLONG
	}
	here, err := w.ensure(w.at)
	if err != nil {
		return err
	}
	next := append(w.at[:len(w.at):len(w.at)], comp)
	key := strings.Join(next, "/")
	if _, ok := w.dirs[key]; ok {
		w.at = next
		return nil
	}
	fd, err := unix.Openat(here, comp, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && w.create {
		fd, err = w.makeDir(here, comp, key, false)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		w.dirs[key] = fd
		w.at = next
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		defer unix.Close(fd)
		return w.follow(fd)
	case isWhiteout(&st):
		unix.Close(fd)
		if !w.create {
			return unix.ENOENT
		}
		return w.uncover(here, comp, key, next)
	}
	unix.Close(fd)
	return unix.ENOTDIR
}

// ensure opens the directory at, which was walked before but may have been left by "..".
func (w *walk) ensure(at []string) (int, error) {
	if len(at) == 0 {
		return w.root, nil
	}
	if fd, ok := w.dirs[strings.Join(at, "/")]; ok {
		return fd, nil
	}
	return -1, unix.ESTALE
}

func (w *walk) follow(fd int) error {
	w.links++
	if w.links > maxSymlinks {
		return unix.ELOOP
	}
	target, err := readlink(fd)
	if err != nil {
		return err
	}
	if strings.HasPrefix(target, "/") {
		w.at = nil
	}
	w.rest = append(strings.Split(target, "/"), w.rest...)
	return nil
}

// uncover replaces a whiteout by a directory. The whiteout said that nothing of the layers below may show there.
func (w *walk) uncover(here int, comp, key string, next []string) error {
	if err := unix.Unlinkat(here, comp, 0); err != nil {
		return err
	}
	fd, err := w.makeDir(here, comp, key, true)
	if err != nil {
		return err
	}
	w.dirs[key] = fd
	w.at = next
	return nil
}

// makeDir makes a directory that an entry implies: mode 0755, owner root.
func (w *walk) makeDir(here int, comp, key string, covers bool) (int, error) {
	if err := unix.Mkdirat(here, comp, 0o755); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(here, comp, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// The umask, or a parent's setgid bit, must not show.
	err = errors.Join(unix.Fchownat(fd, "", 0, 0, unix.AT_EMPTY_PATH), chmodFD(fd, 0o755))
	if err == nil && covers {
		err = w.onCovers(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	w.onMade(key, covers)
	return fd, nil
}

// isWhiteout tells an overlayfs whiteout, Documentation/filesystems/overlayfs.rst.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func readlink(fd int) (string, error) {
	buf := make([]byte, 4096) // PATH_MAX: symlinkat refuses longer ones
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// fdPath names an O_PATH fd for calls that have no form by fd.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func chmodFD(fd int, mode uint32) error { return unix.Chmod(fdPath(fd), mode) }

// removeAll removes name below the directory fd with all that is in it, without following anything.
func (u *unpacker) removeAll(dirfd int, name string) error {
	err := u.rec.unlink(dirfd, name)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := u.removeAll(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}
