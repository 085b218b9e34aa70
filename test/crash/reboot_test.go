package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// crashNode is the end of all processes and of all that lives in memory, as a power cut has it: cgroups, mounts, network
// namespaces, links, rules.
func (n *node) crashNode() {
	n.t.Helper()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := 0
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			if pid, err := strconv.Atoi(e.Name()); err == nil && pid != 1 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
				left++
			}
		}
		if left == 0 {
			break
		}
		if time.Now().After(limit) {
			n.t.Fatalf("processes that do not die: %v", n.processes())
		}
	}
	n.unmountAll()
	for _, root := range hierarchies(n.t) {
		for _, dir := range tree("cgroup", filepath.Join(root, n.cgroup), "") {
			defer os.Remove(strings.TrimPrefix(dir, "cgroup ")) // children first
		}
	}
	for _, l := range n.look() {
		if name, ok := strings.CutPrefix(l, "link "); ok && name != "lo" {
			_ = exec.Command("ip", "link", "del", name).Run()
		}
	}
	_ = exec.Command("nft", "flush", "ruleset").Run()
}

// unmountAll empties the run directory.
func (n *node) unmountAll() {
	for {
		gone := true
		for _, l := range mountsOf("host", "/proc/self/mountinfo") {
			if path := strings.Fields(l)[2]; path == n.run || strings.HasPrefix(path, n.run+"/") {
				_ = unix.Unmount(path, unix.MNT_DETACH)
				gone = false
			}
		}
		if gone {
			break
		}
	}
	os.RemoveAll(n.run)
}
