package unpack

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// keepTar unpacks a tar and returns its directories.
func keepTar(t testing.TB, raw []byte) (files, keep string, err error) {
	t.Helper()
	keep = t.TempDir()
	files = filepath.Join(keep, "f")
	if err := os.Mkdir(files, 0o755); err != nil {
		t.Fatal(err)
	}
	b := Blob{Content: io.NopCloser(bytes.NewReader(raw)), Size: -1, DiffID: digest.FromBytes(raw), Keep: keep}
	_, err = Apply(t.Context(), files, b, Limits{})
	return files, keep, err
}

func TestReassemble(t *testing.T) {
	needRoot(t)
	sparse, err := os.ReadFile("testdata/sparse.tar")
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"empty":   makeTar(t),
		"files":   makeTar(t, dir("."), dir("d"), file("d/a", "1"), file("d/b", strings.Repeat("long ", 100_000)), file("empty", ""), symlink("s", "d"), file("s/c", "2")),
		"padding": append(makeTar(t, file("a", "1")), make([]byte, 20_000)...),
		"a name taken again": makeTar(t, file("a", "1"), file("a", "22"), file("a", "333"), dir("d"), file("d/x", "in d"), file("d/y", "too"), file("d", "file"), file("e", "e"),
			dir("e"), symlink("d", "a")),
		"hard links whose first name goes": makeTar(t, file("a", "1"), link("b", "a"), file("a", "2"), file("b", "3"), link("c", "b"), file("b", "4")),
		"whiteouts":                        makeTar(t, file("a/.wh.x", "ignored"), file("a/.wh..wh..opq", ""), file("x", "1"), file(".wh.x", "")),
		"sparse":                           sparse,
	} {
		t.Run(name, func(t *testing.T) {
			files, keep, err := keepTar(t, raw)
			if err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			if err := Reassemble(&again, files, keep); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.Bytes(), raw) {
				t.Errorf("the tar of %d bytes came back as another of %d", len(raw), again.Len())
			}
		})
	}
}

func TestReassembleOfWhatWasChanged(t *testing.T) {
	needRoot(t)
	raw := makeTar(t, file("d/a", "content"), file("b", "more"))
	for name, tt := range map[string]struct {
		change func(files, keep string) error
		says   string // "": no error, but another tar
	}{
		"bytes":  {func(files, _ string) error { return os.WriteFile(filepath.Join(files, "d/a"), []byte("CONTENT"), 0) }, ""},
		"length": {func(files, _ string) error { return os.Truncate(filepath.Join(files, "d/a"), 3) }, `entry "d/a"`},
		"gone":   {func(files, _ string) error { return os.Remove(filepath.Join(files, "b")) }, `entry "b"`},
		"a symlink": {func(files, _ string) error {
			return errors.Join(os.Remove(filepath.Join(files, "b")), os.Symlink("d/a", filepath.Join(files, "b")))
		}, `entry "b"`},
		"recipe": {func(_, keep string) error { return os.Truncate(filepath.Join(keep, recipeFile), 40) }, "recipe"},
	} {
		t.Run(name, func(t *testing.T) {
			files, keep, err := keepTar(t, raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.change(files, keep); err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			err = Reassemble(&again, files, keep)
			if tt.says == "" && (err != nil || bytes.Equal(again.Bytes(), raw)) {
				t.Errorf("error = %v, the tar is the same: %v", err, bytes.Equal(again.Bytes(), raw))
			}
			if tt.says != "" && (!errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("error = %v, want %s", err, tt.says)
			}
		})
	}
	if err := Reassemble(io.Discard, t.TempDir(), t.TempDir()); !errors.Is(err, ErrNoRecipe) {
		t.Errorf("without a recipe: %v", err)
	}
}

// FuzzReassemble: whatever tar is accepted comes back as it was.
func FuzzReassemble(f *testing.F) {
	needRoot(f)
	f.Add(makeTar(f, file("a", "1"), file("a", "2"), link("b", "a"), dir("a")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		files, keep, err := keepTar(t, raw)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := Reassemble(&again, files, keep); err != nil || !bytes.Equal(again.Bytes(), raw) {
			t.Errorf("%v, equal: %v", err, bytes.Equal(again.Bytes(), raw))
		}
	})
}
