package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLevelsDiffer: no two pods share their categories, and those of a pod that is gone are free again.
func TestLevelsDiffer(t *testing.T) {
	m := &Manager{levels: map[string]string{}}
	m.takeLevel(&Pod{ID: "a"})
	if len(m.levels) != 0 {
		t.Fatalf("a node without SELinux: %v", m.levels)
	}
	m.labels = true
	const pods = 5000
	for range pods {
		p := &Pod{ID: newID()}
		m.takeLevel(p)
		if m.levels[p.level] != p.ID {
			t.Fatalf("pod %s has level %q of pod %q", p.ID, p.level, m.levels[p.level])
		}
	}
	if len(m.levels) != pods {
		t.Errorf("%d pods have %d levels", pods, len(m.levels))
	}
}

// TestRelabel: the kernel keeps security.selinux of a file even where no SELinux reads it.
func TestRelabel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("security.* attributes need root")
	}
	dir := t.TempDir()
	below := filepath.Join(dir, "a")
	if err := os.WriteFile(below, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	err := relabel([]string{dir}, label)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, below} {
		b := make([]byte, 100)
		n, err := unix.Lgetxattr(path, "security.selinux", b)
		if errors.Is(err, unix.ENOTSUP) {
			t.Skipf("the file system of %s keeps no labels", dir)
		}
		if got := strings.TrimRight(string(b[:max(n, 0)]), "\x00"); got != label || err != nil {
			t.Errorf("%s has label %q, %v", path, got, err)
		}
	}
	if err := relabel([]string{"/etc"}, label); err == nil {
		t.Error("/etc was relabelled")
	}
	if err := relabel([]string{filepath.Join(dir, "none")}, label); err == nil {
		t.Error("no error for a path that is not there")
	}
	if err := relabel([]string{"/"}, ""); err != nil {
		t.Errorf("without a label: %v", err)
	}
}
