package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// idBase is where the test's user namespace begins on the host.
const idBase = 200000

// userNamespace opens a user namespace that maps 0… to idBase….
func userNamespace(t *testing.T) int {
	t.Helper()
	op := plan.MakeMap(0, fmt.Sprintf("0 %d 65536\n", idBase), fmt.Sprintf("0 %d 65536\n", idBase))
	f, err := linux.NewUserNS(func(pid int) error { return writeIDMaps(pid, &op) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd())
}

// layers makes two layers of which the upper one hides a file of the lower one, and the writable directories.
func layers(t *testing.T, owner int) (lower []string, upper, work string) {
	t.Helper()
	base := t.TempDir()
	for path, text := range map[string]string{"top/both": "top", "bottom/both": "bottom", "bottom/only": "bottom"} {
		path = filepath.Join(base, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(base, dir), owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	return []string{filepath.Join(base, "top"), filepath.Join(base, "bottom")}, filepath.Join(base, "upper"), filepath.Join(base, "work")
}

// The three ways of making a root give the same root, with and without a user namespace. On kernels that lack a
// way it is left out, with the reason.
func TestOverlayWays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("overlay mounts need root")
	}
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		name string
		way  uint64
		has  bool
	}{
		{"layer fds", plan.OverlayLayerFDs, facts.OverlayLayerFD}, {"lowerdir+", plan.OverlayLowerPlus, facts.OverlayLowerdirPlus}, {"mount", plan.OverlayMount, true},
	} {
		for _, mapped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s mapped=%v", way.name, mapped), func(t *testing.T) {
				if !way.has {
					t.Skipf("kernel %d.%d does not have it", facts.Kernel.Major, facts.Kernel.Minor)
				}
				userns, owner := -1, 0
				if mapped {
					userns, owner = userNamespace(t), idBase
				}
				checkOverlay(t, way.way, userns, owner)
			})
		}
	}
}

func checkOverlay(t *testing.T, way uint64, userns, owner int) {
	t.Helper()
	lower, upper, work := layers(t, owner)
	op := plan.MakeOverlay(0, plan.Overlay{Lower: lower, Upper: upper, Work: work, Way: way, UserNS: plan.NoSlot})
	fd, err := makeOverlay(&op, userns)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	root := fmt.Sprintf("/proc/self/fd/%d/", fd)
	for name, want := range map[string]string{"both": "top", "only": "bottom"} {
		if b, err := os.ReadFile(root + name); err != nil || string(b) != want {
			t.Errorf("%s = %q, %v, want %q", name, b, err, want)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(root+"only", &st); err != nil || int(st.Uid) != owner {
		t.Errorf("a file of a layer belongs to %d (%v), want %d", st.Uid, err, owner)
	}
	if err := os.WriteFile(root+"new", []byte("x"), 0o644); err != nil {
		t.Errorf("the root cannot be written: %v", err)
	}
	if err := os.Remove(root + "both"); err != nil {
		t.Errorf("a file of a layer cannot be removed: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(upper, "new")); err != nil {
		t.Errorf("the new file is not in the upper directory: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(lower[0], "both")); err != nil {
		t.Errorf("the layer was changed: %v", err)
	}
}

// 100 layers with long names: more than a page of options, which mount(2) cannot take by their own names.
func TestOverlayOfManyLayers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("overlay mounts need root")
	}
	base := t.TempDir()
	var lower []string
	for i := range 100 {
		dir := filepath.Join(base, fmt.Sprintf("a-layer-directory-with-a-long-name-as-other-runtimes-have-them-%03d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		lower = append(lower, dir)
	}
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	has := map[uint64]bool{plan.OverlayLayerFDs: facts.OverlayLayerFD, plan.OverlayLowerPlus: facts.OverlayLowerdirPlus, plan.OverlayMount: true}
	for _, way := range []uint64{plan.OverlayLayerFDs, plan.OverlayLowerPlus, plan.OverlayMount} {
		if !has[way] {
			continue
		}
		op := plan.MakeOverlay(0, plan.Overlay{Lower: lower, Way: way, UserNS: plan.NoSlot})
		fd, err := makeOverlay(&op, -1)
		if err != nil {
			t.Errorf("way %d: %v", way, err)
			continue
		}
		if entries, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil || len(entries) != 100 {
			t.Errorf("way %d: %d entries (%v), want 100", way, len(entries), err)
		}
		_ = unix.Close(fd)
	}
}
