package store

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// layer is a finished directory below l/.
type layer struct {
	id string
	layerFile

	images int // records that name it
	holds  int // sessions that are about to
	// fresh layers were not there before the last syncfs.
	fresh bool
}

// layerFile is layer.json.
type layerFile struct {
	Key    digest.Digest `json:"key"` // the diff id, or of a fix-up layer what it was made for
	Unpack int           `json:"unpackVersion"`
	Boot   string        `json:"bootID"` // when it was written: only a record vouches for it in another boot
	Info   unpack.Info   `json:"info"`
}

// layerID is the directory's name: ten characters, so that 128 of them fit a page of mount options. The key is checked
// on reading; two keys with one id would be an error, never a mix-up.
func layerID(key digest.Digest) string {
	sum := sha256.Sum256([]byte(string(key) + " " + strconv.Itoa(unpack.Version)))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:10])
}

func (s *Store) layerDir(key digest.Digest) string { return s.path("l", layerID(key)) }

// readLayer reads l/<id>/layer.json.
func (s *Store) readLayer(id string) (*layer, error) {
	path := s.path("l", id, "layer.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &layer{id: id}
	if err := json.Unmarshal(data, &l.layerFile); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if l.Unpack != unpack.Version || layerID(l.Key) != id {
		return nil, fmt.Errorf("read %s: of another version or layer", path)
	}
	if fi, err := os.Lstat(s.path("l", id, "f")); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("read %s: the layer's directory f is missing", path)
	}
	return l, nil
}

// Fill unpacks a layer into the empty directory dir.
type Fill func(ctx context.Context, dir string) (unpack.Info, error)

// makeLayer makes a layer with its own Fill. The caller makes sure that nobody makes the same one at this time.
func (s *Store) makeLayer(ctx context.Context, key digest.Digest, fill Fill) (_ *layer, err error) {
	tmp, err := os.MkdirTemp(s.path("tmp"), "layer-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	files := filepath.Join(tmp, "f")
	if err := os.Mkdir(files, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(files, 0o755); err != nil { // the umask
		return nil, err
	}
	step()
	l := &layer{id: layerID(key), fresh: true, layerFile: layerFile{Key: key, Unpack: unpack.Version, Boot: s.boot}}
	if l.Info, err = fill(ctx, files); err != nil {
		return nil, err
	}
	step()
	data, err := json.Marshal(l.layerFile)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, "layer.json"), data, 0o600); err != nil {
		return nil, err
	}
	step()
	s.mu.Lock()
	defer s.mu.Unlock()
	// Nobody waits any longer: the session that wanted it may have collected its layers already, and this one would
	// stay behind. Checked under the mutex that collect needs, too.
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := os.Rename(tmp, s.path("l", l.id)); err != nil {
		return nil, err
	}
	step()
	s.layers[key] = l
	return l, nil
}

// hold keeps a layer that is there from being collected.
func (s *Store) hold(key digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[key]
	if ok {
		l.holds++
	}
	return ok
}

func (s *Store) unhold(keys []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if l, ok := s.layers[k]; ok {
			l.holds--
		}
	}
}

// collect throws away every layer that nothing needs. Call it with s.mu held.
func (s *Store) collect() error {
	var errs []error
	for key, l := range s.layers {
		if l.images > 0 || l.holds > 0 {
			continue
		}
		if err := s.discard(s.path("l", l.id)); err != nil {
			errs = append(errs, fmt.Errorf("remove layer %s: %w", key, err))
			continue
		}
		delete(s.layers, key)
	}
	return errors.Join(errs...)
}
