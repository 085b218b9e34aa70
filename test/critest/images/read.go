package images

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layout reads the layout that Build made.
type Layout struct{ Dir string }

// Refs maps every full reference of the layout to its manifest list.
func (l Layout) Refs() (map[string]ispec.Descriptor, error) {
	data, err := os.ReadFile(filepath.Join(l.Dir, ispec.ImageIndexFile))
	if err != nil {
		return nil, fmt.Errorf("read image layout: %w", err)
	}
	var index ispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("read image layout %s: index.json: %w", l.Dir, err)
	}
	refs := map[string]ispec.Descriptor{}
	for _, d := range index.Manifests {
		refs[d.Annotations[ispec.AnnotationRefName]] = d
	}
	return refs, nil
}

// Blob reads one blob.
func (l Layout) Blob(d digest.Digest) ([]byte, error) {
	data, err := os.ReadFile(blobPath(l.Dir, d))
	if err != nil {
		return nil, fmt.Errorf("read image layout: %w", err)
	}
	return data, nil
}

// Children lists what a manifest list or a manifest points at: the manifests,
// or the config and the layers, bottom first.
func (l Layout) Children(d ispec.Descriptor) (manifests, blobs []ispec.Descriptor, err error) {
	data, err := l.Blob(d.Digest)
	if err != nil {
		return nil, nil, err
	}
	switch d.MediaType {
	case ispec.MediaTypeImageIndex, dockerList:
		var index ispec.Index
		err = json.Unmarshal(data, &index)
		return index.Manifests, nil, err
	default:
		var manifest ispec.Manifest
		err = json.Unmarshal(data, &manifest)
		return nil, append([]ispec.Descriptor{manifest.Config}, manifest.Layers...), err
	}
}

// SplitRef splits "host/name:tag" or "host/name".
func SplitRef(ref string) (host, name, tag string) {
	host, name, _ = strings.Cut(ref, "/")
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name, tag = name[:i], name[i+1:]
	}
	return host, name, tag
}
