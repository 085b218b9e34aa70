package daemon

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is a file of an image's layer. A mode of 0 is 0644, a Link makes a hard link.
type File struct {
	Name, Content, Link string
	Mode                int64
}

// Busybox lists the files of a root with the packaged static busybox and its applets as hard links.
func Busybox() ([]File, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install busybox-static", err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets of %s: %w", path, err)
	}
	files := []File{
		{Name: "bin/", Mode: 0o755}, {Name: "etc/", Mode: 0o755}, {Name: "tmp/", Mode: 0o1777},
		{Name: "etc/passwd", Content: "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{Name: "bin/busybox", Mode: 0o755, Content: string(program)},
	}
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			files = append(files, File{Name: "bin/" + name, Link: "bin/busybox", Mode: 0o755})
		}
	}
	return files, nil
}

// Layer packs files as a layer's tar.
func Layer(files []File) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Content)), Typeflag: tar.TypeReg}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname = tar.TypeLink, f.Link
		case strings.HasSuffix(f.Name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		mustPack(w.WriteHeader(h))
		_, err := w.Write([]byte(f.Content))
		mustPack(err)
	}
	mustPack(w.Close())
	return b.Bytes()
}

// mustPack: writing to memory fails only for a File that is no file.
func mustPack(err error) {
	if err != nil {
		panic(err)
	}
}

// Image is one image of one layer, as blobs.
type Image struct {
	Layer, Config, Manifest []byte
}

// Describe gives a blob's descriptor.
func Describe(mediaType string, blob []byte) ispec.Descriptor {
	return ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
}

// NewImage makes an image of a layer's tar for an architecture, "" for this machine's.
func NewImage(layer []byte, arch string) Image {
	if arch == "" {
		arch = runtime.GOARCH
	}
	config := encode(ispec.Image{
		Platform: ispec.Platform{Architecture: arch, OS: "linux"},
		Config:   ispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}},
		RootFS:   ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	return Image{Layer: layer, Config: config, Manifest: encode(ispec.Manifest{
		Versioned: imagespec.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: Describe(ispec.MediaTypeImageConfig, config), Layers: []ispec.Descriptor{Describe(ispec.MediaTypeImageLayer, layer)},
	})}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	mustPack(err)
	return b
}

// WriteArchive writes an image as an OCI archive (image-spec, image-layout.md) under a full name.
func (i Image) WriteArchive(path, name string) error {
	d := Describe(ispec.MediaTypeImageManifest, i.Manifest)
	d.Annotations = map[string]string{ispec.AnnotationRefName: name}
	index := encode(ispec.Index{Versioned: imagespec.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{d}})
	files := []File{{Name: "oci-layout", Content: `{"imageLayoutVersion":"1.0.0"}`}, {Name: "index.json", Content: string(index)}}
	for _, blob := range [][]byte{i.Layer, i.Config, i.Manifest} {
		files = append(files, File{Name: "blobs/sha256/" + digest.FromBytes(blob).Encoded(), Content: string(blob)})
	}
	if err := os.WriteFile(path, Layer(files), 0o600); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	return nil
}
