package engine

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// removeDepth bounds the directories that are open at once. A container can make more inside each other than we may open
// files: what lies deeper is moved up first.
const removeDepth = 32

// remover removes what is in a directory. Nothing is followed out of it, no symbolic link and no mount.
type remover struct {
	top   int // the directory
	moved int // directories that were moved up into it
}

// removeAll removes a directory with all that is in it; its absence is no error. A mount in it gives EBUSY.
func removeAll(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return os.Remove(dir)
	case err != nil:
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	r := &remover{top: fd}
	if err := r.clear(fd, 0); err != nil {
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// clear removes what is in an open directory, which it closes. The top is read until nothing is in it, for what was moved
// up has come meanwhile.
func (r *remover) clear(fd, depth int) error {
	dir := os.NewFile(uintptr(fd), "directory")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(-1)
		err = ignoreAbsent(err) // removed by another one: a container and its pod may be removed at the same time
		for _, name := range names {
			if e := r.remove(fd, name, depth); e != nil && err == nil {
				err = e // and on: what can go goes
			}
		}
		if err != nil || len(names) == 0 || depth > 0 {
			return err
		}
		if _, err := dir.Seek(0, 0); err != nil {
			return err
		}
	}
}

func (r *remover) remove(at int, name string, depth int) error {
	err := unix.Unlinkat(at, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) { // EPERM: of a directory by POSIX, unlink(2)
		err = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
	}
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return named(name, ignoreAbsent(err))
	}
	if depth == removeDepth {
		return r.moveUp(at, name)
	}
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.EXDEV) {
		err = unix.EBUSY
	}
	if err != nil {
		return named(name, ignoreAbsent(err))
	}
	if err := r.clear(fd, depth+1); err != nil {
		return err
	}
	return named(name, ignoreAbsent(unix.Unlinkat(at, name, unix.AT_REMOVEDIR)))
}

// moveUp gives a directory a new name in the top, which will come across it.
func (r *remover) moveUp(at int, name string) error {
	for {
		r.moved++
		err := unix.Renameat2(at, name, r.top, ".moved-"+strconv.Itoa(r.moved), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return named(name, ignoreAbsent(err))
		}
	}
}

func ignoreAbsent(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: "remove", Path: name, Err: err}
}
