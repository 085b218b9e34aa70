package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/join"
)

// keepUnused is how long Open leaves layers alone that no image names: an interrupted pull may be tried again.
const keepUnused = time.Hour

// ErrNotFound says that no such image is here.
var ErrNotFound = errors.New("image not found")

// Store is the open directory. Its methods may be called concurrently.
//
// commits is taken before mu where both are needed: it lets one change of records happen at a time, and is held through
// disk writes. mu guards the maps and is never held through a sync or an unpack.
type Store struct {
	root string
	boot string
	lock *os.File
	log  *slog.Logger

	commits    sync.Mutex
	fills      join.Group[digest.Digest, struct{}]
	background sync.WaitGroup

	mu         sync.Mutex
	layers     map[digest.Digest]*layer
	records    map[digest.Digest]*Record // replaced as a whole, never changed in place
	tags       map[string]digest.Digest
	lends      map[lend]struct{}
	generation uint64
}

// Open takes the directory root (made if missing), throws away what a crash left half done, and reads the records. A
// record that cannot be read is moved to bad/ and logged: the other images stay usable. It fails if another process has
// the store open.
func Open(root string, log *slog.Logger) (*Store, error) {
	s := &Store{
		root: root, log: log,
		layers:  make(map[digest.Digest]*layer),
		records: make(map[digest.Digest]*Record),
		tags:    make(map[string]digest.Digest),
		lends:   make(map[lend]struct{}),
	}
	var err error
	if s.boot, err = bootID(); err != nil {
		return nil, err
	}
	for _, dir := range []string{"", "l", "i", "bad", "tmp", noFiles, bottom} {
		// 0700: host users must not reach setuid programs inside (CVE-2021-41103).
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	// It is the root of a container: as unpack makes one that no entry describes.
	if err := errors.Join(os.Chmod(s.path(noFiles), 0o755), os.Chtimes(s.path(noFiles), time.Unix(0, 0), time.Unix(0, 0))); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if s.lock, err = os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("open image store %s: another process uses it: %w", root, err)
	}
	if err := s.load(); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

// Close waits for background removals and gives the directory free.
func (s *Store) Close() error {
	s.Wait()
	return s.lock.Close()
}

// Wait blocks until what was removed so far is off the disk. Layers in the making whose sessions gave up count, too.
func (s *Store) Wait() {
	s.fills.Wait()
	s.background.Wait()
}

// Directories without files: what an image without any shows, and one to put below a single layer. They are two, as
// overlayfs takes no directory twice.
const noFiles, bottom = "empty/image", "empty/bottom"

// Bottom is a directory without files, for overlayfs, which takes no single layer where there is no upper directory.
func (s *Store) Bottom() string { return s.path(bottom) }

// Making is the directory below which layers are made.
func (s *Store) Making() string { return s.path("tmp") }

// Root is the directory.
func (s *Store) Root() string { return s.root }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

func (s *Store) load() error {
	if err := s.sweep(); err != nil {
		return err
	}
	unused, err := s.loadLayers()
	if err != nil {
		return err
	}
	if err := s.loadRecords(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, l := range s.layers {
		if l.images == 0 && (unused[key] || l.Boot != s.boot) {
			// Without a record, only this boot's page cache vouches for the files.
			if err := s.discard(s.path("l", l.id)); err != nil {
				return err
			}
			delete(s.layers, key)
		}
		l.fresh = l.images == 0
	}
	return nil
}

func (s *Store) sweep() error {
	names, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, n := range names {
		s.reap(s.path("tmp", n.Name()))
	}
	return nil
}

// loadLayers reads all layers and tells which ones are old enough to go if no record names them.
func (s *Store) loadLayers() (old map[digest.Digest]bool, err error) {
	names, err := os.ReadDir(s.path("l"))
	if err != nil {
		return nil, err
	}
	old = make(map[digest.Digest]bool)
	for _, n := range names {
		l, err := s.readLayer(n.Name())
		if err != nil {
			s.log.Warn("throw away layer", "err", err)
			if err := s.discard(s.path("l", n.Name())); err != nil {
				return nil, err
			}
			continue
		}
		if fi, err := n.Info(); err == nil {
			old[l.Key] = time.Since(fi.ModTime()) > keepUnused
		}
		s.layers[l.Key] = l
	}
	return old, nil
}

func (s *Store) loadRecords() error {
	names, err := os.ReadDir(s.path("i"))
	if err != nil {
		return err
	}
	holder := make(map[string]Tag)
	for _, n := range names {
		r, err := s.loadRecord(s.path("i", n.Name()))
		if err != nil {
			s.log.Error("set image record aside", "err", err)
			if err := os.Rename(s.path("i", n.Name()), s.path("bad", n.Name())); err != nil {
				return err
			}
			continue
		}
		s.records[r.ID] = r
		for _, key := range r.chain() {
			s.layers[key].images++
		}
		for _, t := range r.Tags {
			s.generation = max(s.generation, t.Generation)
			if t.Generation >= holder[t.Name].Generation {
				holder[t.Name], s.tags[t.Name] = t, r.ID
			}
		}
	}
	s.dropStaleTags()
	return nil
}

func (s *Store) loadRecord(path string) (*Record, error) {
	if !strings.HasSuffix(path, ".json") {
		return nil, fmt.Errorf("%s is no image record", path)
	}
	r, err := readRecord(path)
	if err != nil {
		return nil, err
	}
	for _, key := range r.chain() {
		if _, ok := s.layers[key]; !ok {
			return nil, fmt.Errorf("read %s: layer %s is missing", path, key)
		}
	}
	return r, nil
}

// dropStaleTags ends a move of a tag that a crash interrupted. The file is put right when the record is written next.
func (s *Store) dropStaleTags() {
	for id, r := range s.records {
		c := r.clone()
		for _, t := range r.Tags {
			if s.tags[t.Name] != id {
				c.dropTag(t.Name)
			}
		}
		s.records[id] = c
	}
}

// Records lists the images.
func (s *Store) Records() []*Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Record, 0, len(s.records))
	for _, r := range s.records {
		if !r.Removed {
			list = append(list, r)
		}
	}
	return list
}

// Record returns the image with this id. The record must not be changed.
func (s *Store) Record(id digest.Digest) (*Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[id]
	return r, ok && !r.Removed
}

// Tagged returns the image that has the full name.
func (s *Store) Tagged(name string) (*Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[s.tags[name]]
	return r, ok && !r.Removed
}

// Usage is what the layers and records take.
type Usage struct {
	Bytes  int64
	Inodes int64
}

// Usage sums up all layers, those of interrupted pulls included. It reads no disk.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	var u Usage
	for _, l := range s.layers {
		u.Bytes += l.Info.Size
		u.Inodes += l.Info.Inodes + 2 // the directory around and layer.json
	}
	for _, r := range s.records {
		u.Bytes += r.bytes()
		u.Inodes++
	}
	return u
}

func (r *Record) bytes() int64 {
	return int64(len(r.Manifest) + len(r.Config) + len(r.Passwd) + len(r.Group))
}

// Size is what the image's layers take, shared ones included.
func (s *Store) Size(r *Record) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := r.bytes()
	for _, key := range r.chain() {
		if l, ok := s.layers[key]; ok {
			size += l.Info.Size
		}
	}
	return size
}
