package store

import (
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Lend gives a container the image's directories, the top first, absolute, and keeps them until Return. Lending again
// to the same container is the same. Lends live in memory: after a restart each container's is made anew (removed
// images included, if one was in use), and then Settle lets go what nobody came back for.
func (s *Store) Lend(id digest.Digest, container string) ([]string, error) {
	s.mu.Lock()
	r, ok := s.records[id]
	if !ok {
		s.mu.Unlock()
		return nil, fmt.Errorf("lend image %s to container %s: %w", id, container, ErrNotFound)
	}
	if was, ok := s.lends[container]; ok && was != id {
		s.mu.Unlock()
		return nil, fmt.Errorf("lend image %s to container %s: it has image %s", id, container, was)
	}
	s.lends[container] = id
	s.mu.Unlock()
	layers := s.shown(r.chain())
	dirs := make([]string, 0, len(layers))
	for _, l := range slices.Backward(layers) {
		dirs = append(dirs, s.path("l", l.id, "f"))
	}
	return dirs, nil
}

// Return ends a container's use; an unknown container is success. The last one removes an image that was removed in the
// meantime.
func (s *Store) Return(container string) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	id, ok := s.lends[container]
	delete(s.lends, container)
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
