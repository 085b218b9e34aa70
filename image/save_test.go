package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// saved makes a store with one image of two layers, and another that shares the first.
func saved(t *testing.T) (s *Store, a, b *Image, reg *fakeRegistry) {
	t.Helper()
	reg = newRegistry(t)
	s = openStore(t, testConfig(t.TempDir()))
	shared := layerTar(t, "d .", "f etc/passwd root:x:0:0", "f d/f "+noise(300_000), "l d/g d/f", "s d/s f", "f twice 1", "f twice 2")
	reg.image(t, "a:1", spec{layers: [][]byte{shared, layerTar(t, "w etc/passwd", "f new 1")}, config: ispec.ImageConfig{User: "7"}})
	reg.image(t, "b:1", spec{layers: [][]byte{shared, shared}, compress: []string{"zstd", "zstd"}})
	pull := func(name string) *Image {
		img, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/" + name})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	a = pull("a:1") // first: the blob of the shared layer is this one's
	b = pull("b:1")
	return s, a, b, reg
}

func TestSaveAndLoad(t *testing.T) {
	s, a, b, _ := saved(t)
	var archive, again bytes.Buffer
	if err := s.Save(t.Context(), &archive, a.Tags[0], b.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), &again, a.ID, b.ID); err != nil || !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Errorf("saved again: %v, equal: %v", err, bytes.Equal(archive.Bytes(), again.Bytes()))
	}
	other := openStore(t, testConfig(t.TempDir()))
	images, err := other.Load(t.Context(), bytes.NewReader(archive.Bytes()), LoadOptions{})
	if err != nil || len(images) != 2 || images[0].ID != a.ID || images[1].ID != b.ID || images[0].Tags[0] != a.Tags[0] || images[0].Config.Config.User != "7" {
		t.Errorf("loaded %+v, %v", images, err)
	}
	for _, img := range []*Image{a, b} {
		one, err := s.Lend(img.ID, "c")
		if err != nil {
			t.Fatal(err)
		}
		two, err := other.Lend(img.ID, "c")
		if err != nil {
			t.Fatal(err)
		}
		want, got := listing(t, overlay(t, one.Lower)), listing(t, overlay(t, two.Lower))
		if strings.Join(want, "\n") != strings.Join(got, "\n") {
			t.Errorf("tree after save and load:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if err := s.Save(t.Context(), &again, "nobody:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("save of what is not here: %v", err)
	}
}

func TestVerifySetsAsideWhatIsCorrupt(t *testing.T) {
	s, a, b, reg := saved(t)
	layers := 0
	if err := s.Verify(t.Context(), a.ID, func(v Verified) { layers++ }); err != nil || layers != 2 {
		t.Fatalf("of what is sound: %v, %d layers", err, layers)
	}
	rootfs, err := s.Lend(a.ID, "c")
	if err != nil {
		t.Fatal(err)
	}
	running := overlay(t, rootfs.Lower)
	victim := filepath.Join(rootfs.Lower[len(rootfs.Lower)-1], "d/f")
	f, err := os.OpenFile(victim, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("!"), 123_456); err != nil {
		t.Fatal(err)
	}
	f.Close()

	var gone []string
	err = s.Verify(t.Context(), a.ID, func(v Verified) { gone = append(gone, v.Gone...) })
	if !errors.Is(err, ErrCorrupt) || len(gone) != 2 {
		t.Fatalf("error = %v, set aside %v; want both images that have the layer", err, gone)
	}
	if n := len(s.List()); n != 0 {
		t.Errorf("%d images are still listed", n)
	}
	if err := s.Save(t.Context(), &bytes.Buffer{}, a.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("save of what was set aside: %v", err)
	}
	if _, err := os.Stat(filepath.Join(running, "d/s")); err != nil {
		t.Errorf("a container that runs on it: %v", err)
	}
	// Fetched again, whole; and the store can be opened again.
	for _, img := range []*Image{a, b} {
		now, err := s.Pull(t.Context(), PullRequest{Ref: img.Tags[0]})
		if err != nil || now.ID != img.ID {
			t.Fatalf("pull of %s after it was set aside: %v", img.Tags[0], err)
		}
		if err := s.Verify(t.Context(), img.ID, func(Verified) {}); err != nil {
			t.Error(err)
		}
	}
	if n := reg.count("GET", reg.layers(t, reg.docs["a:1"].descriptor())[0]); n != 2 {
		t.Errorf("the corrupt layer was fetched %d times in all, want 2", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openStore(t, s.cfg); len(again.List()) != 2 {
		t.Errorf("after opening it again: %d images", len(again.List()))
	}
}
