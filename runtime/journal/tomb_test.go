package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type remembered struct {
	Pod   string
	Exits map[string]int
}

func openTomb(t *testing.T) *Tomb {
	t.Helper()
	tomb, err := OpenTomb(filepath.Join(t.TempDir(), "state", "tomb"))
	must(t, err)
	return tomb
}

func TestTomb(t *testing.T) {
	tomb := openTomb(t)
	must(t, tomb.Write("pod2", remembered{Pod: "old"}))
	want := remembered{Pod: "two", Exits: map[string]int{"c": 137}}
	must(t, tomb.Write("pod2", want))
	must(t, tomb.Write("pod1", remembered{}))

	tomb, err := OpenTomb(tomb.dir)
	must(t, err)
	ids, err := tomb.List()
	must(t, err)
	if d := cmp.Diff([]string{"pod1", "pod2"}, ids); d != "" {
		t.Error(d)
	}
	var got remembered
	must(t, tomb.Read("pod2", &got))
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	must(t, tomb.Remove("pod2"))
	must(t, tomb.Remove("pod2"))
	if err := tomb.Read("pod2", &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read after remove: %v", err)
	}
}

func TestTombRefusesIDs(t *testing.T) {
	tomb := openTomb(t)
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".hidden", "a\x00b", "a b", strings.Repeat("x", 129)} {
		if err := tomb.Write(id, remembered{}); err == nil || !strings.Contains(err.Error(), "pod id") {
			t.Errorf("write %q: %v", id, err)
		}
		if err := tomb.Read(id, nil); err == nil {
			t.Errorf("read %q", id)
		}
		if err := tomb.Remove(id); err == nil {
			t.Errorf("remove %q", id)
		}
	}
}

func TestTombSweepsHalfWrites(t *testing.T) {
	tomb := openTomb(t)
	must(t, os.WriteFile(filepath.Join(tomb.dir, tombTemporary+"123"), []byte("{"), 0o600))
	tomb, err := OpenTomb(tomb.dir)
	must(t, err)
	if left, _ := os.ReadDir(tomb.dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// After a power cut a file may be empty, short, or full of zeros.
func TestTombQuarantine(t *testing.T) {
	tomb := openTomb(t)
	for i, bad := range []string{"", `{"Pod":"x"`, "\x00\x00\x00"} {
		path, err := tomb.Path("pod1")
		must(t, err)
		must(t, os.WriteFile(path, []byte(bad), 0o600))
		var corrupt *CorruptError
		if err := tomb.Read("pod1", new(remembered)); !errors.As(err, &corrupt) || corrupt.Path != path {
			t.Fatalf("read %q: %v", bad, err)
		}
		to, err := tomb.Quarantine(corrupt.Path)
		must(t, err)
		want := "quarantine/tomb-pod1.json"
		if i > 0 {
			want += fmt.Sprint(".", i)
		}
		if got, _ := filepath.Rel(tomb.dir, to); got != want {
			t.Errorf("moved to %s, want %s", got, want)
		}
		if got, err := os.ReadFile(to); err != nil || string(got) != bad {
			t.Errorf("quarantined %q, %v", got, err)
		}
	}
	if ids, err := tomb.List(); err != nil || len(ids) != 0 {
		t.Errorf("list: %v, %v", ids, err)
	}
}

// The journal is on a tmpfs, the tomb on disk.
func TestQuarantineAcrossFileSystems(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "journal-test-")
	if err != nil {
		t.Skipf("needs a tmpfs on /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "pod1", "journal")
	must(t, os.Mkdir(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte("bad"), 0o600))
	to, err := openTomb(t).Quarantine(path)
	must(t, err)
	if got, err := os.ReadFile(to); err != nil || string(got) != "bad" || filepath.Base(to) != "pod1-journal" {
		t.Errorf("%s has %q, %v", to, got, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the first file: %v", err)
	}
}

// A reader sees the old record or the new one, never half of either.
func TestTombConcurrentUse(t *testing.T) {
	tomb := openTomb(t)
	must(t, tomb.Write("pod1", remembered{}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				err := tomb.Write("pod1", remembered{Pod: strings.Repeat("x", i)})
				if err := errors.Join(err, tomb.Read("pod1", new(remembered))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, _ := os.ReadDir(tomb.dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}
