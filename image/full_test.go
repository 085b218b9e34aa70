package image

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// smallFS is a tmpfs of its own. It has a path, and not only a descriptor: another process unpacks.
func smallFS(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "images")
}

// TestDiskFull fills the disk at many places of a pull. Each leaves nothing, and the next image still fits.
func TestDiskFull(t *testing.T) {
	reg := newRegistry(t)
	lines := []string{"d .", "f etc/passwd " + strings.Repeat("root:x:0:0::/:/bin/sh\n", 2000)}
	for i := range 20 {
		lines = append(lines, fmt.Sprintf("f f%d %s", i, strings.Repeat("x", 10_000)))
	}
	reg.image(t, "big:1", spec{layers: [][]byte{layerTar(t, lines...), layerTar(t, "f small 1")}})
	reg.image(t, "small:1", spec{layers: [][]byte{layerTar(t, "f a 1")}})
	fitted := 0
	for kib := 32; kib <= 480; kib += 16 {
		s := openStore(t, testConfig(smallFS(t, fmt.Sprintf("%dk", kib))))
		_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/big:1"})
		if err == nil {
			fitted++
			continue
		}
		if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%d KiB: error = %v, want ENOSPC", kib, err)
		}
		empty(t, s)
		if _, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/small:1"}); err != nil {
			t.Errorf("%d KiB: a small image afterwards: %v", kib, err)
		}
	}
	if fitted == 0 || fitted == 29 {
		t.Errorf("%d of 29 sizes fitted: the test does not reach the edge", fitted)
	}
}
