package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/image/store"
)

// List returns all images, in order of id.
func (s *Store) List() []*Image {
	records := s.disk.Records()
	slices.SortFunc(records, func(a, b *store.Record) int { return cmp.Compare(a.ID, b.ID) })
	list := make([]*Image, len(records))
	for i, r := range records {
		list[i] = s.image(r)
	}
	return list
}

// Get finds an image by its id (with or without "sha256:"), a tag ("busybox" is docker.io/library/busybox:latest), a
// name with digest, or the beginning of one id only.
func (s *Store) Get(ref string) (*Image, bool) {
	r, ok := s.find(ref)
	if !ok {
		return nil, false
	}
	return s.image(r), true
}

// Remove removes the image that ref means, with all its tags and digests, as containerd does. An unknown one is success.
// Containers that use its layers keep them.
func (s *Store) Remove(_ context.Context, ref string) error {
	r, ok := s.find(ref)
	if !ok {
		return nil
	}
	return s.disk.Remove(r.ID)
}

// Pin keeps an image from garbage collection, or gives it free.
func (s *Store) Pin(ref string, pinned bool) error {
	r, ok := s.find(ref)
	if !ok {
		return fmt.Errorf("pin image %q: %w", ref, ErrNotFound)
	}
	return s.disk.Pin(r.ID, pinned)
}

func (s *Store) find(ref string) (*store.Record, bool) {
	if id, err := digest.Parse(ref); err == nil {
		return s.disk.Record(id)
	}
	if r, ok := s.disk.Record(digest.NewDigestFromEncoded(digest.SHA256, ref)); ok {
		return r, true
	}
	if named, err := registry.Parse(ref); err == nil {
		if _, ok := named.(reference.Canonical); ok {
			return s.byDigest(named.String())
		}
		if r, ok := s.disk.Tagged(named.String()); ok {
			return r, true
		}
	}
	return s.byPrefix(strings.TrimPrefix(ref, "sha256:"))
}

func (s *Store) byDigest(ref string) (*store.Record, bool) {
	records := s.disk.Records()
	i := slices.IndexFunc(records, func(r *store.Record) bool { return slices.Contains(r.Digests, ref) })
	if i < 0 {
		return nil, false
	}
	return records[i], true
}

// minPrefix keeps short names from meaning an image by chance.
const minPrefix = 6

func (s *Store) byPrefix(prefix string) (found *store.Record, ok bool) {
	if len(prefix) < minPrefix || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, false
	}
	for _, r := range s.disk.Records() {
		if strings.HasPrefix(r.ID.Encoded(), prefix) {
			if found != nil {
				return nil, false
			}
			found = r
		}
	}
	return found, found != nil
}
