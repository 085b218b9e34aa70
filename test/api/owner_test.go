package api

import (
	"testing"

	"golang.org/x/sys/unix"
)

// owner is the user that a file belongs to on the node.
func owner(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Errorf("stat %s: %v", path, err)
	}
	return st.Uid
}
