package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-mini/cri-mini/image/store"
	"github.com/cri-mini/cri-mini/image/unpack"
)

// ErrNoRecipe says that an image was unpacked by a version whose layers cannot be put together again.
var ErrNoRecipe = unpack.ErrNoRecipe

// Save writes images as one archive that Load, docker load and skopeo read: an OCI layout, with the manifest.json of
// "docker save" beside it. Layers are not compressed; their bytes, and with them the image's id, are those that were
// pulled. The manifest is another, since it names the layers as they are in the archive. An error may come when part of
// the archive is written.
func (s *Store) Save(ctx context.Context, w io.Writer, refs ...string) error {
	a := &saver{s: s, tw: tar.NewWriter(w), done: make(map[digest.Digest]bool)}
	for _, ref := range refs {
		r, ok := s.find(ref)
		if !ok {
			return fmt.Errorf("save image %q: %w", ref, ErrNotFound)
		}
		if err := a.image(ctx, r); err != nil {
			return fmt.Errorf("save image %q: %w", ref, err)
		}
	}
	return a.finish()
}

// saver is one archive in progress.
type saver struct {
	s      *Store
	tw     *tar.Writer
	done   map[digest.Digest]bool // blobs that are written
	index  ispec.Index
	docker []dockerEntry
}

func (a *saver) image(ctx context.Context, r *store.Record) error {
	img := a.s.image(r)
	m := ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: digestOf(ispec.MediaTypeImageConfig, r.Config), Layers: []ispec.Descriptor{},
	}
	m.Config.Digest = r.ID
	entry := dockerEntry{Config: blobPath(r.ID), RepoTags: img.Tags, Layers: []string{}}
	for _, d := range r.Layers {
		desc, err := a.layer(ctx, d)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, desc)
		entry.Layers = append(entry.Layers, blobPath(d))
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return err
	}
	desc := digestOf(ispec.MediaTypeImageManifest, manifest)
	if err := errors.Join(a.blob(r.ID, r.Config), a.blob(desc.Digest, manifest)); err != nil {
		return err
	}
	desc.Platform = &img.Config.Platform
	a.docker = append(a.docker, entry)
	for _, tag := range append(img.Tags, "")[:max(1, len(img.Tags))] {
		named := desc
		if tag != "" {
			named.Annotations = map[string]string{containerdName: tag, ispec.AnnotationRefName: tag}
		}
		a.index.Manifests = append(a.index.Manifests, named)
	}
	return nil
}

func (a *saver) layer(ctx context.Context, d digest.Digest) (ispec.Descriptor, error) {
	desc := ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: d, Size: a.s.disk.TarSize(d)}
	if desc.Size == 0 {
		return desc, fmt.Errorf("layer %s: %w", d, ErrNoRecipe)
	}
	if a.done[d] {
		return desc, nil
	}
	a.done[d] = true
	if err := a.header(blobPath(d), desc.Size); err != nil {
		return desc, err
	}
	return desc, a.s.disk.WriteTar(ctx, d, a.tw)
}

func (a *saver) blob(d digest.Digest, data []byte) error {
	if a.done[d] {
		return nil
	}
	a.done[d] = true
	return a.file(blobPath(d), data)
}

func (a *saver) file(name string, data []byte) error {
	if err := a.header(name, int64(len(data))); err != nil {
		return err
	}
	_, err := a.tw.Write(data)
	return err
}

// header has no time, so that an image is always saved as the same bytes.
func (a *saver) header(name string, size int64) error {
	return a.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}

func (a *saver) finish() error {
	a.index.SchemaVersion, a.index.MediaType = 2, ispec.MediaTypeImageIndex
	for _, doc := range []struct {
		name string
		v    any
	}{
		{ispec.ImageLayoutFile, ispec.ImageLayout{Version: ispec.ImageLayoutVersion}},
		{ispec.ImageIndexFile, a.index},
		{"manifest.json", a.docker},
	} {
		data, err := json.Marshal(doc.v)
		if err != nil {
			return err
		}
		if err := a.file(doc.name, data); err != nil {
			return err
		}
	}
	return a.tw.Close()
}

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// Verified is the result for one layer.
type Verified struct {
	Layer digest.Digest `json:"layer"` // diff id
	Bytes int64         `json:"bytes"` // of its tar
	Error string        `json:"error,omitempty"`
	// Gone are the ids of the images that were set aside with a corrupt layer.
	Gone []string `json:"gone,omitempty"`
}

// Verify holds every layer of an image against its diff id, reading all of its files. One that does not hold is set
// aside with all images that have it, and the next pull fetches it anew. The error is ErrCorrupt then.
func (s *Store) Verify(ctx context.Context, ref string, report func(Verified)) error {
	r, ok := s.find(ref)
	if !ok {
		return fmt.Errorf("verify image %q: %w", ref, ErrNotFound)
	}
	var bad []error
	for _, d := range r.Layers {
		err := s.disk.WriteTar(ctx, d, io.Discard)
		v := Verified{Layer: d, Bytes: s.disk.TarSize(d)}
		if err != nil {
			v.Error = err.Error()
			bad = append(bad, err)
		}
		if errors.Is(err, ErrCorrupt) {
			gone, err := s.disk.Quarantine(d)
			if err != nil {
				return fmt.Errorf("verify image %q: %w", ref, err)
			}
			for _, g := range gone {
				v.Gone = append(v.Gone, g.ID.String())
			}
		}
		report(v)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("verify image %q: %w", ref, errors.Join(bad...))
	}
	return nil
}
