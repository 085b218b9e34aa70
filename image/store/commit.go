package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
)

// NewImage is what Commit makes a record of.
type NewImage struct {
	ID       digest.Digest // of Config
	Manifest []byte
	Config   []byte
	Layers   []digest.Digest // diff ids, the lowest first; the session must hold each
	Tag      string          // full name with tag, or empty
	Digest   string          // name@digest, or empty
}

// Commit makes the image visible, in one rename after one sync. If the image is here already it gets the new names; a
// tag that another image had moves over. Committing what is already so writes nothing.
func (w *Session) Commit(ctx context.Context, img NewImage) (*Record, error) {
	s := w.s
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	old := s.records[img.ID]
	s.mu.Unlock()
	next := &Record{Version: recordVersion, ID: img.ID, Manifest: img.Manifest, Config: img.Config, Layers: img.Layers}
	if old != nil {
		next = old.clone()
	} else if err := w.assemble(ctx, next); err != nil {
		return nil, fmt.Errorf("assemble image %s: %w", img.ID, err)
	}
	if !s.name(next, img) && old != nil && !old.Removed {
		return old, nil
	}
	next.Removed = false
	if err := s.syncFresh(next); err != nil {
		return nil, err
	}
	return next, s.publish(next, img.Tag)
}

// name adds the new names and tells whether there were any. Call it with s.commits held.
func (s *Store) name(r *Record, img NewImage) (changed bool) {
	if img.Tag != "" && !slices.Contains(r.TagNames(), img.Tag) {
		s.mu.Lock()
		s.generation++
		r.Tags = append(r.Tags, Tag{Name: img.Tag, Generation: s.generation})
		s.mu.Unlock()
		changed = true
	}
	if img.Digest != "" && !slices.Contains(r.Digests, img.Digest) {
		r.Digests = append(r.Digests, img.Digest)
		changed = true
	}
	return changed
}

// assemble works out what depends on all layers together: the fix-up layer and the accounts.
func (w *Session) assemble(ctx context.Context, r *Record) error {
	st, err := w.s.openStack(w.s.shown(r.Layers))
	if err != nil {
		return err
	}
	defer func() { st.close() }()
	f, err := planFixup(st)
	if err != nil {
		return err
	}
	if f != nil {
		r.Fixup = fixupKey(r.Layers)
		if err := w.Layer(ctx, r.Fixup, f.fill); err != nil {
			return fmt.Errorf("make fix-up layer: %w", err)
		}
		st.close()
		if st, err = w.s.openStack(w.s.shown(r.chain())); err != nil {
			return err
		}
	}
	if r.Passwd, err = st.account("etc/passwd"); err != nil {
		return fmt.Errorf("read etc/passwd: %w", err)
	}
	if r.Group, err = st.account("etc/group"); err != nil {
		return fmt.Errorf("read etc/group: %w", err)
	}
	return nil
}

// shown lists the layers that show, the lowest first.
func (s *Store) shown(chain []digest.Digest) []*layer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*layer
	seen := make(map[digest.Digest]bool)
	for _, key := range slices.Backward(chain) {
		l := s.layers[key]
		if l == nil || seen[key] || (l.Info.Entries == 0 && !l.Info.OpaqueRoot) {
			continue
		}
		seen[key] = true
		list = append(list, l)
		if l.Info.OpaqueRoot {
			break
		}
	}
	slices.Reverse(list)
	return list
}

// syncFresh puts the layers on disk before a record vouches for them.
func (s *Store) syncFresh(r *Record) error {
	fresh := func() (list []*layer) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range s.layers {
			if l.fresh {
				list = append(list, l)
			}
		}
		return list
	}()
	if !slices.ContainsFunc(fresh, func(l *layer) bool { return slices.Contains(r.chain(), l.Key) }) {
		return nil
	}
	if err := s.syncAll(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range fresh {
		l.fresh = false
	}
	return nil
}

// publish writes the record and then lets it be seen. Call it with s.commits held.
func (s *Store) publish(r *Record, tag string) error {
	if err := s.writeFileSynced(s.path("i", recordName(r.ID)), r); err != nil {
		return fmt.Errorf("commit image %s: %w", r.ID, err)
	}
	s.mu.Lock()
	if s.records[r.ID] == nil {
		for _, key := range r.chain() {
			s.layers[key].images++
		}
	}
	s.records[r.ID] = r
	before, moved := s.tags[tag]
	if tag != "" {
		s.tags[tag] = r.ID
	}
	loser := s.records[before]
	s.mu.Unlock()
	if !moved || before == r.ID || loser == nil {
		return nil
	}
	// From here on the higher generation decides: if this write is lost, Open drops the tag from the loser.
	loser = loser.clone()
	loser.dropTag(tag)
	return s.rewrite(loser)
}

// rewrite replaces the record of an image that is here. Call it with s.commits held.
func (s *Store) rewrite(r *Record) error {
	if err := s.writeFileSynced(s.path("i", recordName(r.ID)), r); err != nil {
		return fmt.Errorf("update image %s: %w", r.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[r.ID] = r
	return nil
}

// Pin keeps or no longer keeps an image from being offered for garbage collection.
func (s *Store) Pin(id digest.Digest, pinned bool) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	r, ok := s.Record(id)
	if !ok {
		return fmt.Errorf("pin %s: %w", id, ErrNotFound)
	}
	if r.Pinned == pinned {
		return nil
	}
	r = r.clone()
	r.Pinned = pinned
	return s.rewrite(r)
}

// Remove takes the image with all its names away; an unknown id is success. Layers that a container uses stay, together
// with a hidden record, until the last Return. Layers of interrupted pulls go, too.
func (s *Store) Remove(id digest.Digest) error {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	r := s.records[id]
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	return s.drop(r)
}

func (s *Store) lentLocked(id digest.Digest) bool {
	for l := range s.lends {
		if l.image == id {
			return true
		}
	}
	return false
}

// hide makes an image invisible but keeps its record, so that a restart does not sweep layers in use.
func (s *Store) hide(r *Record) error {
	if r.Removed {
		return nil
	}
	r = r.clone()
	tags := r.TagNames()
	r.Tags, r.Digests, r.Removed = nil, nil, true
	if err := s.rewrite(r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.untagLocked(tags, r.ID)
	return nil
}

func (s *Store) untagLocked(tags []string, id digest.Digest) {
	for _, t := range tags {
		if s.tags[t] == id {
			delete(s.tags, t)
		}
	}
}

// drop removes an image, or hides it while a container uses it. The record goes from disk before its layers do. Call it
// with s.commits held.
func (s *Store) drop(r *Record) error {
	s.mu.Lock()
	if s.lentLocked(r.ID) {
		s.mu.Unlock()
		return s.hide(r)
	}
	delete(s.records, r.ID) // in the same moment, so that no Lend comes in between
	s.mu.Unlock()
	err := os.Remove(s.path("i", recordName(r.ID)))
	step()
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = syncDir(s.path("i"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.records[r.ID] = r
		return fmt.Errorf("remove image %s: %w", r.ID, err)
	}
	s.untagLocked(r.TagNames(), r.ID)
	for _, key := range r.chain() {
		s.layers[key].images--
	}
	return s.collect()
}
