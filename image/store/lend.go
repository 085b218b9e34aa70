package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// lend is an image in the hands of a container, as its root or as a volume.
type lend struct {
	image     digest.Digest
	container string
}

// Lend gives a container the image's directories, the top first, absolute, and keeps them until Return. Lending again
// is the same, and a container may have several images. Lends live in memory: after a restart each container's are made
// anew (removed images included, if one was in use), and then Settle lets go what nobody came back for.
func (s *Store) Lend(id digest.Digest, container string) ([]string, error) {
	layers, err := s.lend(id, container)
	if err != nil {
		return nil, err
	}
	dirs := make([]string, 0, len(layers))
	for _, l := range slices.Backward(layers) {
		dirs = append(dirs, s.path("l", l.id, "f"))
	}
	if len(dirs) == 0 {
		dirs = append(dirs, s.path(noFiles))
	}
	return dirs, nil
}

func (s *Store) lend(id digest.Digest, container string) ([]*layer, error) {
	s.mu.Lock()
	r, ok := s.records[id]
	if ok {
		s.lends[lend{id, container}] = struct{}{}
	}
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("lend image %s to container %s: %w", id, container, ErrNotFound)
	}
	return s.shown(r.chain()), nil
}

// ErrNotDirectory is the error of a sub path that is a file.
var ErrNotDirectory = errors.New("is not a directory")

// LendDir lends one directory of an image, as the image shows it: symlinks on the way are followed inside the image, and
// the result is what each layer has there, the top first. An error is fs.ErrNotExist or ErrNotDirectory, and then
// nothing was lent that was not before.
func (s *Store) LendDir(id digest.Digest, container, dir string) ([]string, error) {
	s.mu.Lock()
	_, had := s.lends[lend{id, container}]
	s.mu.Unlock()
	layers, err := s.lend(id, container)
	if err != nil {
		return nil, err
	}
	dirs, err := s.dirs(layers, dir)
	if err != nil && !had {
		err = errors.Join(err, s.Return(id, container))
	}
	return dirs, err
}

func (s *Store) dirs(layers []*layer, dir string) ([]string, error) {
	st, err := s.openStack(layers)
	if err != nil {
		return nil, err
	}
	defer st.close()
	if len(st) == 0 {
		return nil, fmt.Errorf("%q: %w", dir, fs.ErrNotExist)
	}
	h, at, err := st.resolve(len(st)-1, dir, true)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%q: too many symbolic links: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if h.kind() != unix.S_IFDIR {
		return nil, fmt.Errorf("%q: %w", dir, ErrNotDirectory)
	}
	var dirs []string
	for _, l := range slices.Backward(st) {
		attr, stops, err := l.look(at)
		if err != nil {
			return nil, err
		}
		if attr != nil && attr.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, s.path("l", l.id, "f", at))
		}
		if stops {
			break
		}
	}
	return dirs, nil
}

// Return ends a container's use of an image; of one that it does not have it is success. The last one removes an image
// that was removed in the meantime.
func (s *Store) Return(id digest.Digest, container string) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	_, ok := s.lends[lend{id, container}]
	delete(s.lends, lend{id, container})
	r, lent := s.records[id], s.lentLocked(id)
	s.mu.Unlock()
	if !ok || r == nil || !r.Removed || lent {
		return nil
	}
	return s.drop(r)
}

// Settle removes images that were removed while in use and that no container has come back for. Call it once after a
// restart, when all containers that are left have their Lend.
func (s *Store) Settle() error {
	s.commits.Lock()
	defer s.commits.Unlock()
	var left []*Record
	s.mu.Lock()
	for id, r := range s.records {
		if r.Removed && !s.lentLocked(id) {
			left = append(left, r)
		}
	}
	s.mu.Unlock()
	for _, r := range left {
		if err := s.drop(r); err != nil {
			return err
		}
	}
	return nil
}
