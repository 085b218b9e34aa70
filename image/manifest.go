package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxManifest = 4 << 20 // bytes of a manifest, index or config
	maxNesting  = 4       // indexes within indexes
	maxLayers   = 500     // what overlayfs can stack, Documentation/filesystems/overlayfs.rst

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// fetcher is where blobs come from: a registry or an archive.
type fetcher interface {
	Fetch(ctx context.Context, desc ispec.Descriptor) (io.ReadCloser, error)
}

// target is an image chosen for this platform, as its documents say.
type target struct {
	manifest     ispec.Manifest
	manifestJSON []byte
	config       ispec.Image
	configJSON   []byte
}

// choose follows desc through indexes to the manifest for this platform and reads its config.
func (s *Store) choose(ctx context.Context, src fetcher, desc ispec.Descriptor) (*target, error) {
	t := &target{}
	for depth := 0; ; depth++ {
		if strings.HasPrefix(desc.MediaType, dockerSchema1) { // the protocol library would look for it among the blobs
			return nil, fmt.Errorf("manifest %s: %w", desc.Digest, errSchema1)
		}
		data, err := readBlob(ctx, src, desc)
		if err != nil {
			return nil, err
		}
		doc, err := parseManifest(desc.MediaType, data)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
		}
		if doc.index == nil {
			t.manifest, t.manifestJSON = *doc.manifest, data
			break
		}
		if depth == maxNesting {
			return nil, fmt.Errorf("manifest %s: %w: more than %d indexes within each other", desc.Digest, ErrCorrupt, maxNesting)
		}
		best, err := s.pick(doc.index.Manifests)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", desc.Digest, err)
		}
		desc = best
	}
	return t, s.readConfig(ctx, src, t)
}

// checkManifestType refuses what a registry does not call a manifest, as the login page of a proxy: the protocol
// library would look for it among the blobs and say that it is not there.
func checkManifestType(desc ispec.Descriptor) error {
	switch desc.MediaType {
	case ispec.MediaTypeImageManifest, ispec.MediaTypeImageIndex, dockerManifest, dockerList:
		return nil
	}
	if strings.HasPrefix(desc.MediaType, dockerSchema1) {
		return fmt.Errorf("manifest %s: %w", desc.Digest, errSchema1)
	}
	return fmt.Errorf("manifest %s: %w: the registry calls it %q", desc.Digest, ErrUnsupported, desc.MediaType)
}

var errSchema1 = fmt.Errorf("%w: Docker schema 1, whose layers cannot be verified; push it again with a current tool", ErrUnsupported)

// document is a manifest or an index.
type document struct {
	manifest *ispec.Manifest
	index    *ispec.Index
}

// parseManifest reads a manifest or index of OCI or Docker kind. A document that could be read as both is refused:
// parties who hold different views of one digest can be played against each other (CVE-2021-41190).
func parseManifest(mediaType string, data []byte) (document, error) {
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
		Manifests     json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return document{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if probe.MediaType != "" {
		mediaType = probe.MediaType
	}
	if probe.SchemaVersion == 1 || probe.FSLayers != nil || strings.HasPrefix(mediaType, dockerSchema1) {
		return document{}, errSchema1
	}
	isManifest, isIndex := probe.Config != nil || probe.Layers != nil, probe.Manifests != nil
	switch {
	case isManifest && isIndex:
		return document{}, fmt.Errorf("%w: both a manifest and an index", ErrCorrupt)
	case isIndex || mediaType == ispec.MediaTypeImageIndex || mediaType == dockerList:
		doc := document{index: &ispec.Index{}}
		return doc, corruptJSON(json.Unmarshal(data, doc.index))
	case isManifest:
		doc := document{manifest: &ispec.Manifest{}}
		if err := json.Unmarshal(data, doc.manifest); err != nil {
			return document{}, corruptJSON(err)
		}
		return doc, checkManifest(doc.manifest)
	}
	return document{}, fmt.Errorf("%w: neither a manifest nor an index (media type %q)", ErrCorrupt, mediaType)
}

func corruptJSON(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

func checkManifest(m *ispec.Manifest) error {
	switch m.Config.MediaType {
	case ispec.MediaTypeImageConfig, dockerConfig, "application/octet-stream", "":
	default:
		return fmt.Errorf("%w: config type %q is not a container image's", ErrUnsupported, m.Config.MediaType)
	}
	if len(m.Layers) > maxLayers {
		return fmt.Errorf("%w: %d layers, the kernel can stack %d", ErrUnsupported, len(m.Layers), maxLayers)
	}
	for i, d := range append([]ispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, blobField(i), err)
		}
	}
	return nil
}

func blobField(i int) string {
	if i == 0 {
		return "config"
	}
	return fmt.Sprintf("layers[%d]", i-1)
}

func checkDescriptor(d ispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", string(d.Digest), err)
	}
	if d.Size < 0 {
		return fmt.Errorf("negative size %d", d.Size)
	}
	if strings.Contains(d.MediaType, "+encrypted") {
		return fmt.Errorf("media type %q: encrypted layers are not supported", d.MediaType)
	}
	return nil
}

// pick chooses the best manifest of an index. Without a platform an entry is taken only if it is alone.
func (s *Store) pick(entries []ispec.Descriptor) (ispec.Descriptor, error) {
	var fit []ispec.Descriptor
	var offered []string
	for _, d := range entries {
		switch {
		case d.Platform == nil:
			if len(entries) == 1 || isIndexType(d.MediaType) {
				fit = append(fit, d)
			}
		case d.Platform.OS == "unknown": // attestations
		case s.platform.Match(platforms.Normalize(*d.Platform)):
			fit = append(fit, d)
		default:
			offered = append(offered, platforms.Format(*d.Platform))
		}
	}
	if len(fit) == 0 {
		return ispec.Descriptor{}, s.platformError(offered)
	}
	best := slices.MinFunc(fit, func(a, b ispec.Descriptor) int { return s.comparePlatforms(a.Platform, b.Platform) })
	if err := checkDescriptor(best); err != nil {
		return ispec.Descriptor{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return best, nil
}

func isIndexType(mediaType string) bool {
	return mediaType == ispec.MediaTypeImageIndex || mediaType == dockerList
}

// comparePlatforms orders better ones first, and those that say nothing last.
func (s *Store) comparePlatforms(a, b *ispec.Platform) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	case s.platform.Less(*a, *b):
		return -1
	case s.platform.Less(*b, *a):
		return 1
	}
	return 0
}

func (s *Store) platformError(offered []string) error {
	have := "none"
	if len(offered) > 0 {
		have = strings.Join(offered, ", ")
	}
	return fmt.Errorf("%w: wanted %s, offered %s", ErrPlatform, platforms.Format(s.cfg.Platform), have)
}

// readConfig reads the image's config and holds it against the manifest and this platform.
func (s *Store) readConfig(ctx context.Context, src fetcher, t *target) error {
	data, err := readBlob(ctx, src, t.manifest.Config)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &t.config); err != nil {
		return fmt.Errorf("config %s: %w: %w", t.manifest.Config.Digest, ErrCorrupt, err)
	}
	t.configJSON = data
	if p := t.config.Platform; p.OS != "" || p.Architecture != "" {
		if !s.platform.Match(platforms.Normalize(p)) {
			return fmt.Errorf("config %s: %w", t.manifest.Config.Digest, s.platformError([]string{platforms.Format(p)}))
		}
	}
	if n := len(t.config.RootFS.DiffIDs); n != len(t.manifest.Layers) {
		return fmt.Errorf("config %s: %w: %d diff ids for %d layers", t.manifest.Config.Digest, ErrCorrupt, n, len(t.manifest.Layers))
	}
	for i, d := range t.config.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("config %s: %w: rootfs.diff_ids[%d]: %q: %w", t.manifest.Config.Digest, ErrCorrupt, i, string(d), err)
		}
	}
	return nil
}

// readBlob reads and verifies a small blob.
func readBlob(ctx context.Context, src fetcher, desc ispec.Descriptor) ([]byte, error) {
	if desc.Size > maxManifest {
		return nil, fmt.Errorf("blob %s: %w: %d bytes, at most %d are read", desc.Digest, ErrCorrupt, desc.Size, maxManifest)
	}
	rc, err := src.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(rc, maxManifest+1))
	if err == io.ErrUnexpectedEOF { //nolint:errorlint // itself: the source has no more, told below; wrapped it is a broken connection
		err = nil
	}
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	if desc.Size >= 0 && int64(len(data)) != desc.Size {
		return nil, fmt.Errorf("blob %s: %w: truncated or grown: %d of %d bytes", desc.Digest, ErrCorrupt, len(data), desc.Size)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, fmt.Errorf("blob %s: %w: digest mismatch: blob has %s", desc.Digest, ErrCorrupt, got)
	}
	return data, nil
}

// digestOf is for documents that come without a descriptor.
func digestOf(mediaType string, data []byte) ispec.Descriptor {
	return ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
