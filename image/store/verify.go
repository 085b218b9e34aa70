package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// WriteTar writes the uncompressed tar that a layer was unpacked from, and fails with unpack.ErrCorrupt if what came
// out is not what the diff id says; by then it is written. The layer stays until the call returns.
func (s *Store) WriteTar(ctx context.Context, diffID digest.Digest, w io.Writer) error {
	if !s.hold(diffID) {
		return fmt.Errorf("layer %s: %w", diffID, ErrNotFound)
	}
	defer s.unhold([]digest.Digest{diffID})
	dir := s.layerDir(diffID)
	sum := diffID.Algorithm().Hash()
	out := writerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		sum.Write(p)
		return w.Write(p)
	})
	if err := unpack.Reassemble(out, dir+"/f", dir); err != nil {
		return fmt.Errorf("layer %s: %w", diffID, err)
	}
	if got := digest.NewDigest(diffID.Algorithm(), sum); got != diffID {
		return fmt.Errorf("layer %s: %w: its files have changed: they make a tar of digest %s", diffID, unpack.ErrCorrupt, got)
	}
	return nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TarSize is the length of what WriteTar writes; 0 if the layer was unpacked without a recipe.
func (s *Store) TarSize(diffID digest.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.layers[diffID]; ok {
		return l.Info.Tar
	}
	return 0
}

// Quarantine takes a layer that is not what it should be out of use: its directory and the records of all images that
// have it go to bad/, and the next pull fetches it anew. Containers that run on it keep what they have, since their
// mounts hold the directory and not its name. It tells which images went.
func (s *Store) Quarantine(key digest.Digest) (gone []*Record, err error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[key]
	if !ok {
		return nil, nil
	}
	// The records first: one without its layer would be set aside at the next Open all the same.
	for id, r := range s.records {
		if !slices.Contains(r.chain(), key) {
			continue
		}
		if err := os.Rename(s.path("i", recordName(id)), s.path("bad", recordName(id))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return gone, fmt.Errorf("quarantine image %s: %w", id, err)
		}
		step()
		delete(s.records, id)
		s.untagLocked(r.TagNames(), id)
		for _, k := range r.chain() {
			s.layers[k].images--
		}
		gone = append(gone, r)
	}
	if err := syncDir(s.path("i")); err != nil {
		return gone, err
	}
	to := s.path("bad", l.id+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err := os.Rename(s.path("l", l.id), to); err != nil {
		return gone, fmt.Errorf("quarantine layer %s: %w", key, err)
	}
	step()
	delete(s.layers, key)
	s.log.Error("layer set aside: its files are not what its digest says", "obj", to, "layer", key, "images", len(gone))
	return gone, syncDir(s.path("l"))
}
