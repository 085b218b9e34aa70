package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// members are the files of an archive, by name.
type members map[string][]byte

func (m members) tar(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names) // index.json comes after blobs/
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Size: int64(len(m[name])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (m members) dir(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, data := range m {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func (m members) blob(d ispec.Descriptor, data []byte) { m["blobs/sha256/"+d.Digest.Encoded()] = data }

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// layout puts images into an OCI layout; annotations are of the manifest with the same index.
func layout(t *testing.T, specs []spec, annotations []map[string]string) members {
	t.Helper()
	files := members{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	idx := index(ispec.MediaTypeImageIndex)
	for i, s := range specs {
		m, config, blobs := build(t, s)
		files.blob(m.Config, config)
		for j, b := range blobs {
			files.blob(m.Layers[j], b)
		}
		data := marshal(t, m)
		desc := digestOf(m.MediaType, data)
		files.blob(desc, data)
		desc.Annotations = annotations[i]
		idx.Manifests = append(idx.Manifests, desc)
	}
	files["index.json"] = marshal(t, idx)
	return files
}

func TestLoadLayout(t *testing.T) {
	files := layout(t,
		[]spec{{layers: [][]byte{layerTar(t, "f a 1")}}, {layers: [][]byte{layerTar(t, "f b 1")}}, {layers: [][]byte{layerTar(t, "f c 1")}, platform: arm64}},
		[]map[string]string{{containerdName: "docker.io/library/app:v1", ispec.AnnotationRefName: "v1"}, {ispec.AnnotationRefName: "v2"}, {}})
	archive := files.tar(t)
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, archive, 0o644); err != nil {
		t.Fatal(err)
	}
	_, zst := compressLayer(t, "zstd", archive)
	gzPath := path + ".gz"
	if err := os.WriteFile(gzPath, gzipBytes(t, archive), 0o644); err != nil {
		t.Fatal(err)
	}
	opts := LoadOptions{Name: "example.org/team/app"}
	ways := map[string]func(s *Store) ([]*Image, error){
		"stream":      func(s *Store) ([]*Image, error) { return s.Load(t.Context(), bytes.NewReader(archive), opts) },
		"zstd stream": func(s *Store) ([]*Image, error) { return s.Load(t.Context(), bytes.NewReader(zst), opts) },
		"file":        func(s *Store) ([]*Image, error) { return s.LoadPath(t.Context(), path, opts) },
		"gzip file":   func(s *Store) ([]*Image, error) { return s.LoadPath(t.Context(), gzPath, opts) },
		"directory":   func(s *Store) ([]*Image, error) { return s.LoadPath(t.Context(), files.dir(t), opts) },
	}
	for name, load := range ways {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, testConfig(t.TempDir()))
			images, err := load(s)
			if err != nil {
				t.Fatal(err)
			}
			if len(images) != 2 { // the one for arm64 is left out
				t.Fatalf("%d images", len(images))
			}
			for _, ref := range []string{"app:v1", "example.org/team/app:v2"} {
				if _, ok := s.Get(ref); !ok {
					t.Errorf("no %s", ref)
				}
			}
			for _, img := range images {
				if err := s.Remove(t.Context(), img.ID); err != nil {
					t.Fatal(err)
				}
			}
			empty(t, s)
		})
	}
}

func TestLoadDockerArchive(t *testing.T) {
	base, top := layerTar(t, "f a 1"), layerTar(t, "f b 1")
	m, config, _ := build(t, spec{layers: [][]byte{base, top, base}})
	files := members{
		m.Config.Digest.Encoded() + ".json": config,
		"1/layer.tar":                       base,
		"2/layer.tar":                       top,
		"manifest.json": marshal(t, []dockerEntry{{
			Config: m.Config.Digest.Encoded() + ".json", RepoTags: []string{"app:v1", "other:latest"}, Layers: []string{"1/layer.tar", "2/layer.tar", "1/layer.tar"},
		}}),
	}
	s := openStore(t, testConfig(t.TempDir()))
	images, err := s.Load(t.Context(), bytes.NewReader(files.tar(t)), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 1 || images[0].ID != m.Config.Digest.String() || len(images[0].Tags) != 2 {
		t.Errorf("images = %+v", images[0])
	}
	if img, ok := s.Get("other"); !ok || img.ID != m.Config.Digest.String() {
		t.Error("second tag is missing")
	}
}

func TestLoadBadArchives(t *testing.T) {
	good := layout(t, []spec{{layers: [][]byte{layerTar(t, "f a 1")}}}, []map[string]string{nil})
	without := func(what string) []byte {
		files := make(members)
		for name, data := range good {
			if !strings.Contains(name, what) {
				files[name] = data
			}
		}
		return files.tar(t)
	}
	layer := ""
	for name, data := range good {
		if strings.HasPrefix(name, "blobs/") && data[0] == 0x1f {
			layer = filepath.Base(name)
		}
	}
	flipped := members{}
	for name, data := range good {
		flipped[name] = data
	}
	flipped["blobs/sha256/"+layer] = append(bytes.Clone(good["blobs/sha256/"+layer]), 'x')
	tests := []struct {
		name string
		data []byte
		says string
		want error
	}{
		{"nothing", nil, "not an image archive", ErrCorrupt},
		{"no tar", []byte("hello, this is no archive at all"), "read archive", ErrCorrupt},
		{"no index", without("index.json"), "not an image archive", ErrCorrupt},
		{"missing layer", without(layer), "sha256:" + layer, ErrCorrupt},
		{"layer changed", flipped.tar(t), "sha256:" + layer, ErrCorrupt},
		{"other platform", layout(t, []spec{{platform: arm64}}, []map[string]string{nil}).tar(t), "offered linux/arm64", ErrPlatform},
		{"digest with a path", members{"index.json": marshal(t, index(ispec.MediaTypeImageIndex, ispec.Descriptor{Digest: "sha256:../../index.json"}))}.tar(t), "index.json", ErrCorrupt},
		{"bad name", layout(t, []spec{{}}, []map[string]string{{containerdName: "Bad Name"}}).tar(t), "Bad Name", ErrInvalidReference},
		{"docker layer missing", members{"c": []byte(`{"rootfs":{"diff_ids":["` + digest.FromString("x").String() + `"]}}`), "manifest.json": []byte(`[{"Config":"c","Layers":["l"]}]`)}.tar(t), "layer l", ErrCorrupt},
		{"cut off in a header", good.tar(t)[:700], "", ErrCorrupt},
		{"cut off in a blob", good.tar(t)[:520], "cut off in", ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, testConfig(t.TempDir()))
			_, err := s.Load(t.Context(), bytes.NewReader(tt.data), LoadOptions{})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error = %v; want %v saying %q", err, tt.want, tt.says)
			}
			file := filepath.Join(t.TempDir(), "image.tar")
			if err := os.WriteFile(file, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.LoadPath(t.Context(), file, LoadOptions{}); !errors.Is(err, tt.want) || strings.Count(err.Error(), file) != 1 {
				t.Errorf("from a file: %v; want %v naming the file once", err, tt.want)
			}
			empty(t, s)
		})
	}
}

// TestLayoutDirectoryStaysInside: a symlink in a layout must not read the node's files.
func TestLayoutDirectoryStaysInside(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	outside := filepath.Join(t.TempDir(), "index.json")
	if err := os.WriteFile(outside, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoadPath(t.Context(), dir, LoadOptions{}); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("error = %v, want a refusal", err)
	}
}
