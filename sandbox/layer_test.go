package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/test/testbed"
)

func TestMeasure(t *testing.T) {
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "big")
	must(os.WriteFile(outside, make([]byte, 1<<20), 0o600))
	must(os.MkdirAll(filepath.Join(root, "a/b"), 0o755))
	must(os.WriteFile(filepath.Join(root, "a/one"), make([]byte, 300000), 0o600))
	must(os.Link(filepath.Join(root, "a/one"), filepath.Join(root, "a/b/two")))
	must(os.Link(filepath.Join(root, "a/one"), filepath.Join(root, "three")))
	must(os.Symlink(filepath.Dir(outside), filepath.Join(root, "a/away")))
	for i := range 2000 { // more than one read of a directory
		must(os.WriteFile(filepath.Join(root, "a/b", fmt.Sprintf("%0100d", i)), nil, 0o600))
	}
	var want uint64
	for _, name := range []string{"", "a", "a/b", "a/one", "a/away"} {
		var st unix.Stat_t
		must(unix.Lstat(filepath.Join(root, name), &st))
		want += uint64(st.Blocks) * 512
	}
	use, ok := measure(root)
	if !ok || use.bytes != want || use.inodes != 2005 {
		t.Errorf("%d bytes and %d inodes, want %d and 2005", use.bytes, use.inodes, want)
	}
	if _, ok := measure(filepath.Join(root, "absent")); ok {
		t.Error("a directory that is not there was measured")
	}
}

// A tree that is deeper than a path can be long ends the walk there, and nothing else.
func TestMeasureDeepTree(t *testing.T) {
	root := t.TempDir()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 200)
	for range 40 {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
	if use, ok := measure(root); !ok || use.inodes < 15 || use.inodes > 41 {
		t.Errorf("%d inodes of a deep tree", use.inodes)
	}
}

func TestLayersAreMeasuredOnce(t *testing.T) {
	l, dir := newLayers(), t.TempDir()
	_, done := l.ask(dir, time.Time{})
	if _, again := l.ask(dir, time.Time{}); done == nil || again != done && again != nil {
		t.Error("two questions make two measurements")
	}
	<-done
	use, wait := l.ask(dir, time.Time{})
	if wait != nil || use.at.IsZero() || use.inodes != 1 {
		t.Errorf("after it was measured: %+v", use)
	}
	l.mu.Lock()
	use.at = use.at.Add(-time.Hour)
	l.known[dir] = use
	l.mu.Unlock()
	if old, wait := l.ask(dir, use.at.Add(-time.Second)); wait != nil || len(l.queue) != 0 || !old.at.Equal(use.at) {
		t.Error("the layer of a container that has ended is measured again")
	}
	if old, wait := l.ask(dir, time.Time{}); wait != nil || !old.at.Equal(use.at) {
		t.Error("a question waits though something is known")
	}
	for limit := time.Now().Add(testbed.Limit(5 * time.Second)); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		if now, _ := l.ask(dir, time.Time{}); now.at.After(use.at) {
			break
		}
	}
	if now, _ := l.ask(dir, time.Time{}); !now.at.After(use.at) {
		t.Error("an old size is not measured anew")
	}
}

// TestForgottenLayerStaysForgotten: one that is removed while it is measured.
func TestForgottenLayerStaysForgotten(t *testing.T) {
	l := &layers{known: map[string]layerUse{}, queued: map[string]chan struct{}{}, queue: make(chan string, 1)}
	dir := filepath.Join(t.TempDir(), "upper")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l.ask(dir, time.Time{})
	use, ok := measure(<-l.queue)
	if !ok {
		t.Fatal("it was not measured")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	l.forget(dir)
	l.tell(dir, use, ok)
	if len(l.known)+len(l.queued) > 0 {
		t.Errorf("known %v, queued %v", l.known, l.queued)
	}
}
