package crash

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
	specs "github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageName is the one image: busybox-static with hard links for its applets.
const imageName = "localhost/crash:1"

// writeImage writes it as an OCI archive.
func writeImage(path string) error {
	layer, err := busyboxLayer()
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	config := ispec.Image{
		Platform: ispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   ispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}},
		RootFS:   ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	blob := func(mediaType string, v any) ispec.Descriptor {
		data, ok := v.([]byte)
		if !ok {
			data, _ = json.Marshal(v)
		}
		d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		addFile(w, "blobs/sha256/"+d.Digest.Encoded(), 0o644, data)
		return d
	}
	manifest := ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: blob(ispec.MediaTypeImageConfig, config), Layers: []ispec.Descriptor{blob(ispec.MediaTypeImageLayer, layer)},
	}
	d := blob(ispec.MediaTypeImageManifest, manifest)
	d.Annotations = map[string]string{ispec.AnnotationRefName: imageName}
	index, _ := json.Marshal(ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{d}})
	addFile(w, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	addFile(w, "index.json", 0o644, index)
	if err := w.Close(); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

func busyboxLayer() ([]byte, error) {
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
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin/", "etc/", "tmp/"} {
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
	}
	addFile(w, "etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\n"))
	addFile(w, "bin/busybox", 0o755, program)
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "bin/" + name, Linkname: "bin/busybox", Mode: 0o755})
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// addFile's errors come again from Close.
func addFile(w *tar.Writer, name string, mode int64, data []byte) {
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))})
	_, _ = w.Write(data)
}
