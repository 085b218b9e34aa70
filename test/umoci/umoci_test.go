package umoci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-mini/cri-mini/image"
)

// layer is one layer of an image: entries, or a function that finds them.
type layer func() ([]entry, error)

func made(entries ...entry) layer { return func() ([]entry, error) { return entries, nil } }

func packages(names ...string) layer { return func() ([]entry, error) { return installed(names...) } }

func TestUnpack(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: umoci and we make devices and owners")
	}
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Fatalf("%v: sudo make deps installs it", err)
	}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			layout, bundle, shown := t.TempDir(), filepath.Join(t.TempDir(), "bundle"), t.TempDir()
			write(t, layout, c.layers)
			began := time.Now()
			if out, err := exec.Command("umoci", "unpack", "--image", layout+":judge", bundle).CombinedOutput(); err != nil {
				t.Fatalf("umoci unpack: %v\n%s", err, out)
			}
			theirs, err := look(filepath.Join(bundle, "rootfs"))
			if err != nil {
				t.Fatal(err)
			}
			show(t, layout, shown)
			ours, err := look(shown)
			if err != nil {
				t.Fatal(err)
			}
			diff := compare(theirs, ours, began)
			for _, name := range slices.Sorted(maps.Keys(diff)) {
				if _, explained := c.differs[name]; !explained {
					t.Errorf("%q: %s", name, diff[name])
				}
			}
			for name, why := range c.differs {
				if _, ok := diff[name]; !ok {
					t.Errorf("%q differs no more (%s): take it off the list", name, why)
				}
			}
			t.Logf("%d names, %d differ", len(theirs), len(diff))
		})
	}
}

// write makes an OCI layout with one image, tag judge.
func write(t *testing.T, dir string, layers []layer) {
	t.Helper()
	put := func(mediaType string, b []byte) ispec.Descriptor {
		t.Helper()
		d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		p := filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return d
	}
	encode := func(v any) []byte {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	config := ispec.Image{Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ispec.RootFS{Type: "layers"}}
	m := ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest}
	for i, l := range layers {
		entries, err := l()
		if err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
		b, err := pack(entries...)
		if err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(b))
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
		if _, err := w.Write(b); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		m.Layers = append(m.Layers, put(ispec.MediaTypeImageLayerGzip, z.Bytes()))
	}
	m.Config = put(ispec.MediaTypeImageConfig, encode(config))
	desc := put(ispec.MediaTypeImageManifest, encode(m))
	desc.Annotations = map[string]string{ispec.AnnotationRefName: "judge"}
	index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{desc}}
	for name, v := range map[string]any{ispec.ImageIndexFile: index, ispec.ImageLayoutFile: ispec.ImageLayout{Version: ispec.ImageLayoutVersion}} {
		if err := os.WriteFile(filepath.Join(dir, name), encode(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// show loads the layout's image and mounts it.
func show(t *testing.T, layout, dir string) {
	t.Helper()
	s, err := image.Open(t.Context(), image.Config{Root: filepath.Join(t.TempDir(), "images")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	images, err := s.LoadPath(t.Context(), layout, image.LoadOptions{Name: "localhost/judged"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Mount(images[0].ID, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
}

type judged struct {
	name   string
	layers []layer
	// differs are the names that are not the same, each with the reason.
	differs map[string]string
}

func cases() []judged {
	long := strings.Repeat("long-name/", 20) + strings.Repeat("n", 200)
	many := func() ([]entry, error) {
		var list []entry
		for i := range 10_000 {
			list = append(list, file(fmt.Sprintf("many/%02x/%05d", i%256, i), fmt.Sprint(i), 0o644))
		}
		return list, nil
	}
	return []judged{
		{name: "packages", layers: []layer{packages("base-files", "coreutils"), packages("passwd", "mount", "util-linux"), packages("perl-base", "tzdata")}},
		{name: "packages, one replaced, one partly removed", layers: []layer{
			packages("bash", "tar", "gzip"), made(gone("bin/bash"), gone("bin/tar"), file("bin/gzip", "#!/bin/sh\n", 0o755)), packages("bash"),
		}},
		{name: "whiteouts", layers: []layer{
			made(dir("d", 0o755), file("d/a", "a", 0o644), file("d/b", "b", 0o644), dir("d/e", 0o750), file("d/e/f", "f", 0o644), file("g", "g", 0o644)),
			made(gone("d/a"), gone("d/e"), gone("g")),
		}},
		{name: "whiteout of what is not there", layers: []layer{made(file("a", "a", 0o644)), made(gone("b"), gone("c/d"))}, differs: map[string]string{
			"c": "we make the directory that a whiteout is said to be in, as for any other entry, and as containerd does",
		}},
		{name: "opaque directory", layers: []layer{
			made(dir("d", 0o755), file("d/a", "a", 0o644), dir("d/sub", 0o711), file("d/sub/b", "b", 0o644)),
			made(dir("d", 0o700).owned(5, 6), opaque("d"), file("d/c", "c", 0o600)),
			made(file("d/a", "again", 0o644)),
		}},
		{name: "removed and made anew as another type", layers: []layer{
			made(dir("a", 0o755), file("a/x", "x", 0o644), file("b", "b", 0o644), symlink("c", "a"), dir("e", 0o755), file("e/y", "y", 0o644)),
			made(file("a", "now a file", 0o644), dir("b", 0o755), file("b/z", "z", 0o644), file("c", "no link any more", 0o644), symlink("e", "b")),
			made(gone("a"), gone("b")),
			made(dir("a", 0o770), file("a/new", "n", 0o644), symlink("b", "a/new")),
		}},
		{name: "hard links in a layer", layers: []layer{
			made(file("a", "one inode", 0o644).owned(1, 2), link("b", "a"), dir("d", 0o755), link("d/c", "b"), symlink("s", "a"), link("t", "s")),
			made(gone("b")),
		}},
		{name: "hard links into lower layers", layers: []layer{
			made(file("a", "below", 0o4755).owned(7, 8), file("x/y", "deep", 0o600)),
			made(link("b", "a"), link("x/z", "x/y")),
			made(link("c", "b")),
		}},
		{name: "a linked file changed above", layers: []layer{
			made(file("a", "one", 0o644), link("b", "a")),
			made(file("a", "two", 0o600)),
		}},
		{name: "setuid and setgid with owners", layers: []layer{
			made(file("u", "u", 0o4755).owned(1000, 1000), file("g", "g", 0o2755).owned(1000, 50), dir("sticky", 0o1777).owned(3, 3), dir("sg", 0o2775).owned(0, 50), file("sg/in", "i", 0o644).owned(1, 1)),
		}},
		{name: "devices and fifos", layers: []layer{
			made(node("null", tar.TypeChar, 1, 3), node("loop", tar.TypeBlock, 7, 200).owned(0, 6), node("pipe", tar.TypeFifo, 0, 0)),
			made(node("null", tar.TypeFifo, 0, 0), gone("loop")),
		}},
		{name: "extended attributes", layers: []layer{
			made(file("ping", "p", 0o755).xattr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
				file("u", "u", 0o644).xattr("user.note", "a \x00 value").xattr("user.empty", ""), dir("d", 0o755).xattr("user.dir", "yes")),
			made(file("d/x", "x", 0o644), file("u", "u2", 0o644)),
		}},
		{name: "long names", layers: []layer{
			made(file(long, "pax", 0o644).format(tar.FormatPAX), file("gnu/"+long, "gnu", 0o644).format(tar.FormatGNU),
				symlink("to-long", long).format(tar.FormatGNU), link("hard-to-long", long).format(tar.FormatPAX)),
		}},
		{name: "names that are not UTF-8", layers: []layer{
			made(file("latin-\xe9", "e", 0o644).format(tar.FormatGNU), dir("d\xff", 0o755).format(tar.FormatGNU), file("d\xff/\x01\x7f\n", "odd", 0o644).format(tar.FormatGNU), symlink("s\xfe", "latin-\xe9").format(tar.FormatGNU)),
		}},
		{name: "times", layers: []layer{
			made(file("ns", "n", 0o644).at(time.Unix(1_700_000_000, 123_456_789)), file("old", "o", 0o644).at(time.Unix(-1_000_000, 0)).format(tar.FormatPAX), file("zero", "z", 0o644).at(time.Unix(0, 0)),
				file("far", "f", 0o644).at(time.Unix(1<<33, 0)).format(tar.FormatPAX), dir("d", 0o755).at(time.Unix(1_500_000_000, 5)), file("d/in", "i", 0o644), symlink("l", "ns").at(time.Unix(1_400_000_000, 7))),
		}},
		{name: "implied directories", layers: []layer{
			made(file("a/b/c", "c", 0o644), dir("p", 0o700).owned(9, 9).at(time.Unix(1_000_000_000, 0)), dir("p/q", 0o711).owned(4, 4)),
			made(file("p/q/r/s", "s", 0o644), file("a/b/d", "d", 0o644)),
			made(dir("a", 0o750).owned(1, 1)),
		}},
		{name: "a directory of the layer below, named again", layers: []layer{
			made(dir("etc", 0o755), file("etc/a", "a", 0o644)),
			made(dir("etc", 0o700).owned(2, 2), file("etc/b", "b", 0o644)),
		}},
		{name: "the root itself", layers: []layer{
			made(entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, Uid: 12, Gid: 13}}, file("./a", "a", 0o644)),
			made(file("b", "b", 0o644)),
		}},
		{name: "entries twice", layers: []layer{
			made(file("a", "first", 0o644), file("a", "second", 0o600).owned(3, 4), dir("d", 0o755), dir("d", 0o700), symlink("s", "x"), symlink("s", "y")),
		}},
		{name: "below a symbolic link of the layer", layers: []layer{
			made(dir("usr", 0o755), dir("usr/lib", 0o755), symlink("lib", "usr/lib"), file("usr/lib/a", "a", 0o644)),
			made(dir("usr/lib", 0o755), file("usr/lib/b", "b", 0o644)),
		}},
		{name: "many files", layers: []layer{many, made(gone("many/00/00000"), opaque("many/01"))}},
		{name: "a layer without files", layers: []layer{made()}},
	}
}
