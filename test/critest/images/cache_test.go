package images

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUsedKeepsTheNewest(t *testing.T) {
	parent := t.TempDir()
	for i := range 6 { // 5 is the oldest
		dir := filepath.Join(parent, strconv.Itoa(i))
		at := time.Now().Add(-time.Duration(i+1) * time.Hour)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
	}
	Used(filepath.Join(parent, "5"))
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "5"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
