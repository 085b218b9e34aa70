package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// deepen makes directories inside each other, with a file in each, and links that lead out.
func deepen(t *testing.T, dir string, levels int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		if err := errors.Join(unix.Mkdirat(at, "d", 0o700), unix.Mknodat(at, "f", unix.S_IFREG|0o600, 0), unix.Symlinkat("/", at, "l")); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(at)
		at = next
	}
	unix.Close(at)
}

// TestRemoveAll takes a tree away that is deeper than the files that may be open, and wider than one read of a directory.
func TestRemoveAll(t *testing.T) {
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	where, err := os.MkdirTemp("/dev/shm", "remove-") // thousands of directories take long on a disk
	if err != nil {
		where = t.TempDir()
	}
	defer os.RemoveAll(where)
	dir := filepath.Join(where, "layer")
	if err := os.MkdirAll(filepath.Join(dir, "wide", "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(dir, "wide", strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, ".moved-1"), nil, 0o600), os.Symlink(outside, filepath.Join(dir, "out")), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	deepen(t, dir, 3000)
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 100, Max: had.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err = removeAll(dir)
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &had); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Errorf("removeAll: %.300v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what a link led to: %v", err)
	}
	for name, path := range map[string]string{"absent": dir, "a link": filepath.Join(outside, "link"), "a file": filepath.Join(outside, "file")} {
		switch name {
		case "a link":
			_ = os.Symlink(outside, path)
		case "a file":
			_ = os.WriteFile(path, nil, 0o600)
		}
		if err := removeAll(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what the link led to: %v", err)
	}
}

// TestRemoveAllEntersNoMount: what is mounted below is busy, and nothing of it is touched.
func TestRemoveAllEntersNoMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	dir, volume := filepath.Join(t.TempDir(), "layer"), t.TempDir()
	point := filepath.Join(dir, "a", "volume")
	kept := filepath.Join(volume, "kept")
	if err := errors.Join(os.MkdirAll(point, 0o755), os.WriteFile(kept, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(volume, point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := removeAll(dir); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removeAll: %v, want EBUSY", err)
	}
	if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if err := removeAll(dir); err != nil {
		t.Error(err)
	}
}
