package crash

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTidiedStateDirectory: what all containers share is made again when somebody has deleted it or a part of it, also
// between a create and its start.
func TestTidiedStateDirectory(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("tidied"))
	for i, gone := range []string{"skeleton", "skeleton/etc/hosts", "skeleton/proc", "empty"} {
		name := string(rune('a' + i))
		c := p.create(containerConfig(name, "cat /etc/hosts /proc/self/cgroup; exit 3"))
		if err := os.RemoveAll(filepath.Join(n.state, gone)); err != nil {
			t.Fatal(err)
		}
		c.start()
		c.mustExit(3, "Error")
	}
	p.remove()
	n.mustBeEmpty()
}
