package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/image/store"
)

// containerdName is the annotation that containerd and Docker give the full name in.
const containerdName = "io.containerd.image.name"

// LoadOptions say how to name what is loaded.
type LoadOptions struct {
	// Name is the repository of images that the archive gives only a tag, or, with a tag, the name of one that has none.
	Name string
}

// Load reads an image archive from a stream: an OCI layout or the form of "docker save", as a tar or compressed.
// Images for other platforms are left out if there is one for this.
func (s *Store) Load(ctx context.Context, r io.Reader, opts LoadOptions) ([]*Image, error) {
	a, err := s.openStream(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("load image: %w", err)
	}
	return s.load(ctx, a, opts)
}

// LoadPath is Load from a file, or from the directory of an OCI layout.
func (s *Store) LoadPath(ctx context.Context, path string, opts LoadOptions) ([]*Image, error) {
	a, err := s.openPath(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("load image: %w", err)
	}
	images, err := s.load(ctx, a, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return images, nil
}

func (s *Store) load(ctx context.Context, a archive, opts LoadOptions) ([]*Image, error) {
	defer a.Close()
	indexJSON, err := readMember(a, "index.json")
	var images []*Image
	switch {
	case err == nil:
		images, err = s.loadLayout(ctx, a, indexJSON, opts)
	case errors.Is(err, fs.ErrNotExist):
		images, err = s.loadDocker(ctx, a)
	}
	if err != nil {
		return nil, fmt.Errorf("load image: %w", err)
	}
	return images, nil
}

func (s *Store) loadLayout(ctx context.Context, a archive, indexJSON []byte, opts LoadOptions) ([]*Image, error) {
	doc, err := parseManifest(ispec.MediaTypeImageIndex, indexJSON)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if doc.index == nil {
		return nil, fmt.Errorf("index.json: %w: not an index", ErrCorrupt)
	}
	var images []*Image
	var other []error
	for _, desc := range doc.index.Manifests {
		img, err := s.loadManifest(ctx, a, desc, opts)
		if errors.Is(err, ErrPlatform) {
			other = append(other, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	if len(images) == 0 && len(other) > 0 {
		return nil, errors.Join(other...)
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("index.json: %w: no manifests", ErrCorrupt)
	}
	return s.dedupe(images), nil
}

func (s *Store) loadManifest(ctx context.Context, a archive, desc ispec.Descriptor, opts LoadOptions) (*Image, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, fmt.Errorf("index.json: %w: %w", ErrCorrupt, err)
	}
	names, err := layoutNames(desc, opts.Name)
	if err != nil {
		return nil, err
	}
	src := layoutSource{a}
	t, err := s.choose(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	return s.installLoaded(ctx, src, t, names)
}

// installLoaded shows the load among the pulls that run.
func (s *Store) installLoaded(ctx context.Context, src fetcher, t *target, names store.NewImage) (*Image, error) {
	p, end := s.track(cmp.Or(names.Tag, names.Digest, t.manifest.Config.Digest.String()), true)
	defer end()
	return s.install(ctx, src, t, names, p)
}

// layoutNames finds the name of a manifest in an OCI layout.
func layoutNames(desc ispec.Descriptor, base string) (store.NewImage, error) {
	name := desc.Annotations[containerdName]
	if name == "" {
		name = desc.Annotations[ispec.AnnotationRefName]
		if name != "" && !strings.ContainsAny(name, "/:@") { // only a tag
			if base == "" {
				return store.NewImage{}, nil
			}
			name = base + ":" + name
		}
	}
	if name == "" {
		name = base
	}
	if name == "" {
		return store.NewImage{}, nil
	}
	named, err := registry.Parse(name)
	if err != nil {
		return store.NewImage{}, err
	}
	n := store.NewImage{Digest: reference.TrimNamed(named).String() + "@" + desc.Digest.String()}
	if tagged, ok := named.(reference.NamedTagged); ok {
		n.Tag = tagged.String()
	}
	return n, nil
}

// dedupe lists each image once, with all the names it got.
func (s *Store) dedupe(images []*Image) []*Image {
	var list []*Image
	for _, img := range images {
		if slices.ContainsFunc(list, func(i *Image) bool { return i.ID == img.ID }) {
			continue
		}
		if now, ok := s.Get(img.ID); ok {
			list = append(list, now)
		}
	}
	return list
}

// dockerEntry is one image in manifest.json of "docker save" before Docker 25, and of podman and skopeo.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (s *Store) loadDocker(ctx context.Context, a archive) ([]*Image, error) {
	data, err := readMember(a, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: neither index.json nor manifest.json in it: not an image archive", ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	var entries []dockerEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("manifest.json: %w: %w", ErrCorrupt, err)
	}
	var images []*Image
	for i, e := range entries {
		img, err := s.loadDockerEntry(ctx, a, e)
		if err != nil {
			return nil, fmt.Errorf("manifest.json: image %d: %w", i, err)
		}
		images = append(images, img...)
	}
	return s.dedupe(images), nil
}

func (s *Store) loadDockerEntry(ctx context.Context, a archive, e dockerEntry) ([]*Image, error) {
	src, t, err := s.dockerTarget(ctx, a, e)
	if err != nil {
		return nil, err
	}
	var images []*Image
	for _, tag := range append(e.RepoTags, "")[:max(1, len(e.RepoTags))] {
		var names store.NewImage
		if tag != "" {
			named, err := registry.Parse(tag)
			if err != nil {
				return nil, err
			}
			names.Tag = named.String()
		}
		img, err := s.installLoaded(ctx, src, t, names)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

// dockerSource finds a docker-save layer by its diff id: such archives have no digests of blobs.
type dockerSource struct {
	archive
	config []byte
	layers map[string]string // digest → member
}

func (d dockerSource) Fetch(_ context.Context, desc ispec.Descriptor) (io.ReadCloser, error) {
	if name, ok := d.layers[string(desc.Digest)]; ok {
		rc, err := d.open(name)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w: %w", name, ErrCorrupt, err)
		}
		return rc, nil
	}
	return io.NopCloser(strings.NewReader(string(d.config))), nil
}

// dockerTarget makes the manifest that the archive lacks. Its layers are the uncompressed ones, verified by diff id.
func (s *Store) dockerTarget(ctx context.Context, a archive, e dockerEntry) (dockerSource, *target, error) {
	config, err := readMember(a, e.Config)
	if err != nil {
		return dockerSource{}, nil, fmt.Errorf("config %q: %w: %w", e.Config, ErrCorrupt, err)
	}
	var parsed ispec.Image
	if err := json.Unmarshal(config, &parsed); err != nil {
		return dockerSource{}, nil, fmt.Errorf("config %q: %w: %w", e.Config, ErrCorrupt, err)
	}
	if len(parsed.RootFS.DiffIDs) != len(e.Layers) {
		return dockerSource{}, nil, fmt.Errorf("config %q: %w: %d diff ids for %d layers", e.Config, ErrCorrupt, len(parsed.RootFS.DiffIDs), len(e.Layers))
	}
	src := dockerSource{archive: a, config: config, layers: make(map[string]string)}
	t := &target{manifest: ispec.Manifest{MediaType: ispec.MediaTypeImageManifest, Config: digestOf(ispec.MediaTypeImageConfig, config)}}
	t.manifest.SchemaVersion = 2
	for i, d := range parsed.RootFS.DiffIDs {
		src.layers[string(d)] = e.Layers[i]
		t.manifest.Layers = append(t.manifest.Layers, ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: d, Size: -1})
	}
	if t.manifestJSON, err = json.Marshal(t.manifest); err != nil {
		return dockerSource{}, nil, err
	}
	return src, t, s.readConfig(ctx, src, t)
}
