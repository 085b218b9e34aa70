package images

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types of Docker's image manifest version 2, schema 2, which most
// registries still serve beside those of OCI.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// compression says how the layers of an image are packed.
type compression int

const (
	gzipped compression = iota
	zstandard
	plain
)

// image is one recipe: what it is called, what is in it, how it is packed.
type image struct {
	refs   []string // full references with tag; all name the same manifest list
	docker bool     // Docker's media types in place of OCI's
	pack   compression
	layers []Tree // bottom first
	config ispec.ImageConfig
	// decoy puts a manifest for another architecture first in the list, so
	// that a runtime which takes the first one it sees is found out.
	decoy bool
	// foreign leaves nothing but the decoy.
	foreign bool
}

// layout writes an OCI image layout (image-spec, image-layout.md).
type layout struct {
	dir   string
	index ispec.Index
}

func newLayout(dir string) (*layout, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	l := &layout{dir: dir, index: ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex}}
	return l, l.writeJSON(ispec.ImageLayoutFile, ispec.ImageLayout{Version: ispec.ImageLayoutVersion})
}

// add writes one image and names its manifest list in the index.
func (l *layout) add(img image) error {
	var manifests []ispec.Descriptor
	if img.decoy || img.foreign {
		decoy := img
		decoy.layers = []Tree{{"wrong-architecture": node{Type: '0', Mode: 0o644}}}
		d, err := l.manifest(decoy, otherArch())
		if err != nil {
			return err
		}
		manifests = append(manifests, d)
	}
	if !img.foreign {
		d, err := l.manifest(img, runtime.GOARCH)
		if err != nil {
			return err
		}
		manifests = append(manifests, d)
	}
	mediaType := pick(img.docker, dockerList, ispec.MediaTypeImageIndex)
	list, err := l.blobJSON(mediaType, ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: manifests})
	if err != nil {
		return err
	}
	for _, ref := range img.refs {
		named := list
		named.Annotations = map[string]string{ispec.AnnotationRefName: ref}
		l.index.Manifests = append(l.index.Manifests, named)
	}
	return nil
}

// manifest writes the layers, the config and the manifest for one platform.
func (l *layout) manifest(img image, arch string) (ispec.Descriptor, error) {
	mediaType := pick(img.docker, dockerManifest, ispec.MediaTypeImageManifest)
	manifest := ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType}
	created := epoch
	config := ispec.Image{
		Created: &created, Platform: ispec.Platform{OS: "linux", Architecture: arch},
		Config: img.config, RootFS: ispec.RootFS{Type: "layers"},
	}
	for _, tree := range img.layers {
		layer, diffID, err := l.layer(tree, img)
		if err != nil {
			return ispec.Descriptor{}, fmt.Errorf("build image %s: %w", img.refs[0], err)
		}
		manifest.Layers = append(manifest.Layers, layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, ispec.History{Created: &created, CreatedBy: "critest/images"})
	}
	var err error
	if manifest.Config, err = l.blobJSON(pick(img.docker, dockerConfig, ispec.MediaTypeImageConfig), config); err != nil {
		return ispec.Descriptor{}, err
	}
	d, err := l.blobJSON(mediaType, manifest)
	d.Platform = &ispec.Platform{OS: "linux", Architecture: arch}
	return d, err
}

func (l *layout) layer(tree Tree, img image) (ispec.Descriptor, digest.Digest, error) {
	var packed bytes.Buffer
	mediaType, pack, err := packer(&packed, img)
	if err != nil {
		return ispec.Descriptor{}, "", err
	}
	diffID := digest.SHA256.Digester()
	if err := tree.WriteTar(io.MultiWriter(pack, diffID.Hash())); err != nil {
		return ispec.Descriptor{}, "", err
	}
	if err := pack.Close(); err != nil {
		return ispec.Descriptor{}, "", err
	}
	d, err := l.blob(mediaType, packed.Bytes())
	return d, diffID.Digest(), err
}

func packer(w io.Writer, img image) (mediaType string, pack io.WriteCloser, err error) {
	switch img.pack {
	case zstandard: // one worker: the frame must not depend on the machine
		pack, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		return ispec.MediaTypeImageLayerZstd, pack, err
	case plain:
		return ispec.MediaTypeImageLayer, nopCloser{w}, nil
	default:
		pack, err = gzip.NewWriterLevel(w, gzip.BestSpeed)
		return pick(img.docker, dockerLayer, ispec.MediaTypeImageLayerGzip), pack, err
	}
}

func (l *layout) blobJSON(mediaType string, v any) (ispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	return l.blob(mediaType, data)
}

func (l *layout) blob(mediaType string, data []byte) (ispec.Descriptor, error) {
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, os.WriteFile(blobPath(l.dir, d.Digest), data, 0o644)
}

// close writes the index, which makes the layout a valid one.
func (l *layout) close() error {
	sort.SliceStable(l.index.Manifests, func(i, j int) bool {
		return l.index.Manifests[i].Annotations[ispec.AnnotationRefName] < l.index.Manifests[j].Annotations[ispec.AnnotationRefName]
	})
	return l.writeJSON(ispec.ImageIndexFile, l.index)
}

func (l *layout) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, name), append(data, '\n'), 0o644)
}

func blobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// otherArch is a platform that this machine does not run.
func otherArch() string { return pick(runtime.GOARCH == "s390x", "ppc64le", "s390x") }

func pick(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
