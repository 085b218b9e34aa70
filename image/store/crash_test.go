package store

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/unpack"
)

const (
	crashEnv = "CRI_MINI_STORE_CRASH" // kill yourself at this step
	rootEnv  = "CRI_MINI_STORE_ROOT"
)

// TestMain is also the process that gets killed.
func TestMain(m *testing.M) {
	at, err := strconv.Atoi(os.Getenv(crashEnv))
	if err != nil {
		os.Exit(m.Run())
	}
	n := 0
	step = func() {
		if n++; n == at {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // the signal is on its way to this thread's process
		}
	}
	if err := script(os.Getenv(rootEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// testLayer is a layer by its lines "name content" or "name -> link target" or "-name" for a whiteout.
func testLayer(lines ...string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, line := range lines {
		h := &tar.Header{Mode: 0o644}
		content := ""
		if name, target, ok := strings.Cut(line, " -> "); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeLink, name, target
		} else {
			h.Name, content, _ = strings.Cut(line, " ")
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o711
		}
		_ = w.WriteHeader(h)
		_, _ = w.Write([]byte(content))
	}
	_ = w.Close()
	return buf.Bytes()
}

var (
	baseLayer = testLayer("./", "d/", "d/base B", "etc/passwd root:x:0:0")
	aLayer    = testLayer("./", "a A")
	bLayer    = testLayer("./", "d/link -> d/base", "d/b B") // needs a fix-up layer
)

func testImage(name string, tars ...[]byte) NewImage {
	config := []byte(fmt.Sprintf(`{"name":%q}`, name))
	img := NewImage{ID: digest.FromBytes(config), Config: config, Manifest: []byte("{}"), Tag: "example.org/x:latest"}
	img.Digest = "example.org/x@" + img.ID.String()
	for _, t := range tars {
		img.Layers = append(img.Layers, digest.FromBytes(t))
	}
	return img
}

var imageA, imageB = testImage("a", baseLayer, aLayer), testImage("b", baseLayer, bLayer)

func commitImage(s *Store, img NewImage, tars ...[]byte) error {
	w := s.Begin()
	for _, t := range tars {
		err := w.Layer(context.Background(), digest.FromBytes(t), func(ctx context.Context, dir string) (unpack.Info, error) {
			return unpack.Tar(ctx, dir, bytes.NewReader(t), unpack.Limits{})
		})
		if err != nil {
			return err
		}
	}
	_, err := w.Commit(context.Background(), img)
	return errors.Join(err, w.Close(err != nil))
}

// script goes through all that changes the disk. It may be run again after being killed anywhere.
func script(root string) error {
	s, err := Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer s.Close()
	steps := []func() error{
		s.Settle,
		func() error { return commitImage(s, imageA, baseLayer, aLayer) },
		func() error { return commitImage(s, imageB, baseLayer, bLayer) }, // takes A's tag
		func() error { return s.Pin(imageB.ID, true) },
		func() error { _, err := s.Lend(imageA.ID, "c"); return err },
		func() error { return s.Remove(imageA.ID) },      // hidden: c has it
		func() error { return s.Return(imageA.ID, "c") }, // and now gone
		func() error { return s.Remove(imageB.ID) },
	}
	for i, do := range steps {
		if err := do(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// TestKilledAtEveryStep kills a process between any two changes that it makes to the disk. After each the store must
// open, hold only whole images, and come to the same end when everything is asked for again.
func TestKilledAtEveryStep(t *testing.T) {
	needRoot(t)
	points := 0
	for at := 1; ; at++ {
		root := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+strconv.Itoa(at), rootEnv+"="+root)
		out, err := cmd.CombinedOutput()
		if err == nil {
			points = at - 1
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("crash at %d: %v: %s", at, err, out)
		}
		checkWhole(t, at, root)
		if err := script(root); err != nil {
			t.Fatalf("crash at %d: asked again: %v", at, err)
		}
		for _, dir := range []string{"l", "i", "bad", "tmp"} {
			if names, _ := os.ReadDir(filepath.Join(root, dir)); len(names) > 0 {
				t.Errorf("crash at %d: %s/ holds %v in the end", at, dir, names)
			}
		}
	}
	t.Logf("killed at %d points", points)
	if points < 30 {
		t.Errorf("only %d points: is step still called everywhere?", points)
	}
}

func checkWhole(t *testing.T, at int, root string) {
	t.Helper()
	s, err := Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("crash at %d: %v", at, err)
	}
	defer s.Close()
	if names, _ := os.ReadDir(filepath.Join(root, "bad")); len(names) > 0 {
		t.Errorf("crash at %d: records set aside: %v", at, names)
	}
	holders := 0
	for _, r := range s.Records() {
		holders += len(r.Tags)
		if string(r.Passwd) != "root:x:0:0" {
			t.Errorf("crash at %d: passwd of %s is %q", at, r.ID, r.Passwd)
		}
		dirs, err := s.Lend(r.ID, "check")
		if err != nil {
			t.Fatal(err)
		}
		want := map[digest.Digest][]string{imageA.ID: {"a A", "d/base B"}, imageB.ID: {"d/b B", "d/base B", "d/link B"}}[r.ID]
		if got := files(t, dirs); !slices.Equal(got, want) {
			t.Errorf("crash at %d: %s shows %q, want %q", at, r.ID, got, want)
		}
		if err := s.Return(r.ID, "check"); err != nil {
			t.Fatal(err)
		}
	}
	if holders > 1 {
		t.Errorf("crash at %d: %d images have the tag", at, holders)
	}
	s.Wait()
	if names, _ := os.ReadDir(filepath.Join(root, "tmp")); len(names) > 0 {
		t.Errorf("crash at %d: tmp/ holds %v after Open", at, names)
	}
}

// files lists the regular files of some directories one over the other, without etc/.
func files(t *testing.T, dirs []string) []string {
	t.Helper()
	seen := make(map[string]string)
	for _, dir := range slices.Backward(dirs) {
		err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
			if err != nil || !fi.Mode().IsRegular() {
				return err
			}
			rel, _ := filepath.Rel(dir, p)
			b, err := os.ReadFile(p)
			seen[rel] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var list []string
	for name, content := range seen {
		if !strings.HasPrefix(name, "etc/") {
			list = append(list, name+" "+content)
		}
	}
	slices.Sort(list)
	return list
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers hold owners and trusted.* extended attributes")
	}
}

func open(t *testing.T, root string) *Store {
	t.Helper()
	needRoot(t)
	s, err := Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func count(t *testing.T, s *Store, dir string) int {
	t.Helper()
	s.Wait()
	names, err := os.ReadDir(s.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestLentLayersStay(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := commitImage(s, imageB, baseLayer, bLayer); err != nil {
		t.Fatal(err)
	}
	dirs, err := s.Lend(imageB.ID, "c1")
	if err != nil || len(dirs) != 3 {
		t.Fatalf("Lend = %v, %v", dirs, err)
	}
	again, err := s.Lend(imageB.ID, "c1")
	if diff := cmp.Diff(dirs, again); diff != "" || err != nil {
		t.Errorf("Lend again: %v\n%s", err, diff)
	}
	if err := s.Remove(imageB.ID); err != nil {
		t.Fatal(err)
	}
	if len(s.Records()) != 0 {
		t.Error("a removed image is still listed")
	}
	if got := files(t, dirs); len(got) != 3 {
		t.Errorf("lent files = %q", got)
	}
	// A restart: the layers stay until the container has its lend again or Settle says that it will not.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	if again, err = s.Lend(imageB.ID, "c1"); err != nil || !slices.Equal(again, dirs) {
		t.Fatalf("Lend after a restart = %v, %v", again, err)
	}
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dirs); len(got) != 3 {
		t.Errorf("lent files after Settle = %q", got)
	}
	// Pulled again while hidden, it is a normal image once more.
	if err := commitImage(s, imageB, baseLayer, bLayer); err != nil {
		t.Fatal(err)
	}
	if err := s.Return(imageB.ID, "c1"); err != nil {
		t.Fatal(err)
	}
	if len(s.Records()) != 1 {
		t.Fatal("the image is gone")
	}
	if err := s.Remove(imageB.ID); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "l") + count(t, s, "i") + count(t, s, "tmp"); n != 0 {
		t.Errorf("%d things left", n)
	}
	if err := errors.Join(s.Return(imageB.ID, "c1"), s.Return(imageB.ID, "nobody"), s.Remove(imageB.ID)); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := s.Lend(imageB.ID, "c2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Lend of nothing: %v", err)
	}
}

func TestSettleRemovesWhatNobodyCameBackFor(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := commitImage(s, imageA, baseLayer, aLayer); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lend(imageA.ID, "c"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Remove(imageA.ID), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	if n := count(t, s, "l"); n != 2 {
		t.Errorf("%d layers after a restart, want 2", n)
	}
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "l") + count(t, s, "i"); n != 0 {
		t.Errorf("%d things left", n)
	}
}

func TestSharedLayersStayUntilTheLastImageGoes(t *testing.T) {
	s := open(t, t.TempDir())
	if err := errors.Join(commitImage(s, imageA, baseLayer, aLayer), commitImage(s, imageB, baseLayer, bLayer)); err != nil {
		t.Fatal(err)
	}
	both := s.Usage()
	if n := count(t, s, "l"); n != 4 { // base, a, b and b's fix-up
		t.Errorf("%d layers, want 4", n)
	}
	if err := s.Remove(imageA.ID); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "l"); n != 3 {
		t.Errorf("%d layers after the first is gone, want 3", n)
	}
	if one := s.Usage(); one.Bytes >= both.Bytes || one.Inodes >= both.Inodes || one.Bytes <= 0 {
		t.Errorf("usage %+v → %+v", both, one)
	}
	if err := s.Remove(imageB.ID); err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u != (Usage{}) {
		t.Errorf("usage in the end: %+v", u)
	}
}

func TestBadRecordIsSetAside(t *testing.T) {
	damage := map[string]func(t *testing.T, s *Store){
		"torn": func(t *testing.T, s *Store) {
			truncate(t, s.path("i", recordName(imageA.ID)), 20)
		},
		"of another image": func(t *testing.T, s *Store) {
			if err := os.Rename(s.path("i", recordName(imageA.ID)), s.path("i", strings.Repeat("0", 64)+".json")); err != nil {
				t.Fatal(err)
			}
		},
		"layer missing": func(t *testing.T, s *Store) {
			if err := os.RemoveAll(s.layerDir(imageA.Layers[1])); err != nil {
				t.Fatal(err)
			}
		},
		"layer record torn": func(t *testing.T, s *Store) {
			truncate(t, filepath.Join(s.layerDir(imageA.Layers[1]), "layer.json"), 10)
		},
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, root)
			if err := errors.Join(commitImage(s, imageA, baseLayer, aLayer), commitImage(s, imageB, baseLayer, bLayer)); err != nil {
				t.Fatal(err)
			}
			do(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, root)
			if list := s.Records(); len(list) != 1 || list[0].ID != imageB.ID {
				t.Errorf("records = %v, want only image b", list)
			}
			if n := count(t, s, "bad"); n != 1 {
				t.Errorf("%d records set aside", n)
			}
			if err := commitImage(s, imageA, baseLayer, aLayer); err != nil {
				t.Errorf("pulled again: %v", err)
			}
		})
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// TestUnrecordedLayersAfterAReboot: without a sync nothing says that their files are whole on disk.
func TestUnrecordedLayersAfterAReboot(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	w := s.Begin()
	for _, l := range [][]byte{baseLayer, aLayer} {
		err := w.Layer(t.Context(), digest.FromBytes(l), func(ctx context.Context, dir string) (unpack.Info, error) {
			return unpack.Tar(ctx, dir, bytes.NewReader(l), unpack.Limits{})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(false), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	if n := count(t, s, "l"); n != 2 {
		t.Errorf("%d layers after a crash in the same boot, want 2", n)
	}
	path := filepath.Join(s.layerDir(digest.FromBytes(aLayer)), "layer.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.ReplaceAll(data, []byte(s.boot), []byte("another-boot"))
	if err := errors.Join(os.WriteFile(path, data, 0o600), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	if n := count(t, s, "l"); n != 1 {
		t.Errorf("%d layers after a reboot, want the one of this boot", n)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := Open(s.root, s.log); !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), s.root) {
		t.Errorf("second Open: %v", err)
	}
}

func TestFailedFillLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	w := s.Begin()
	bad := errors.New("disk full")
	err := w.Layer(t.Context(), digest.FromString("x"), func(_ context.Context, dir string) (unpack.Info, error) {
		return unpack.Info{}, errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), bad)
	})
	if !errors.Is(err, bad) {
		t.Errorf("error = %v", err)
	}
	if n := count(t, s, "l") + count(t, s, "tmp"); n != 0 {
		t.Errorf("%d things left", n)
	}
}

// TestLayerThatCameMeanwhile: one that was looked for just before another session's fill had ended is taken as it is.
func TestLayerThatCameMeanwhile(t *testing.T) {
	s := open(t, t.TempDir())
	fills := 0
	fill := func(context.Context, string) (unpack.Info, error) {
		fills++
		return unpack.Info{Entries: 1}, nil
	}
	key := digest.FromString("x")
	for range 2 {
		if err := s.fillOnce(t.Context(), key, fill); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, s, "l"); n != 1 || fills != 1 || count(t, s, "tmp") != 0 {
		t.Errorf("%d layers after %d fills", n, fills)
	}
}
