package crash

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// hierarchies are the mount points of cgroups.
func hierarchies(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && strings.HasPrefix(after, "cgroup") {
			found = append(found, f[4])
		}
	}
	return found
}

// steady is look at a moment when nothing is under way: the tomb is written a little after what it tells of.
func (n *node) steady() (found []string) {
	n.t.Helper()
	until(n.t, "the tomb is still being written", func() bool {
		found = n.look()
		return !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, "/tomb/.tmp-") })
	})
	return found
}

// look lists all that there is on this machine and that a runtime could have made: one line each.
func (n *node) look() []string {
	var s []string
	s = append(s, n.processes()...)
	s = append(s, mountsOf("host", "/proc/self/mountinfo")...)
	s = append(s, n.privateMounts()...)
	for _, root := range hierarchies(n.t) {
		s = append(s, tree("cgroup", root, "")...)
	}
	s = append(s, tree("run", n.run, "")...)
	s = append(s, tree("state", n.state, filepath.Join(n.state, "images/l"))...)
	links, _ := net.Interfaces()
	for _, l := range links {
		s = append(s, "link "+l.Name)
	}
	rules, err := exec.Command("nft", "-s", "list", "ruleset").CombinedOutput()
	if err != nil {
		s = append(s, "nft: "+err.Error())
	}
	for line := range strings.Lines(string(rules)) {
		s = append(s, "nft "+strings.TrimSpace(line))
	}
	slices.Sort(s)
	return n.withoutSpare(s)
}

// withoutSpare leaves out one monitor, which the daemon may keep for the next pod, with its socket. A second one is too
// much.
func (n *node) withoutSpare(s []string) []string {
	for _, prefix := range []string{"process cri-mini-monito S: ", "run " + n.run + "/monitors/"} {
		if i := slices.IndexFunc(s, func(l string) bool { return strings.HasPrefix(l, prefix) }); i >= 0 && n.daemon != nil {
			s = slices.Delete(s, i, i+1)
		}
	}
	return s
}

// pids are all in this PID namespace.
func pids() map[int]bool {
	entries, _ := os.ReadDir("/proc")
	list := map[int]bool{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list[pid] = true
		}
	}
	return list
}

// processes are all in this PID namespace but the daemon and those that were there before it, such as the services of
// the machine if its PID 1 is systemd; zombies count.
func (n *node) processes() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []string{"process: " + err.Error()}
	}
	var s []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || n.others[pid] || n.daemon != nil && pid == n.daemon.Process.Pid {
			continue
		}
		st, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it went while we looked
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		args := strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		s = append(s, fmt.Sprintf("process %s: %s", state(string(st)), args))
	}
	return s
}

// state gives "name S" of /proc/PID/stat. Whether a process happens to run just now makes no difference.
func state(stat string) string {
	name, rest, _ := strings.Cut(stat, ") ")
	_, name, _ = strings.Cut(name, "(")
	return name + " " + strings.NewReplacer("R", "S", "D", "S").Replace(rest[:1])
}

func mountsOf(where, mountinfo string) []string {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil // a thread that has ended
	}
	var s []string
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) > 4 && len(g) > 0 {
			s = append(s, fmt.Sprintf("mount %s %s %s", where, f[4], g[0]))
		}
	}
	return s
}

// privateMounts are those of the daemon's private mount namespace: one of its threads lives there.
func (n *node) privateMounts() []string {
	if n.daemon == nil {
		return nil
	}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", n.daemon.Process.Pid))
	for _, task := range tasks {
		if ns, err := os.Readlink(filepath.Join(task, "ns/mnt")); err == nil && ns != own {
			return mountsOf("private", filepath.Join(task, "mountinfo"))
		}
	}
	return []string{"mount private: the daemon has no thread there"}
}

// tree lists the names below a directory, without one subtree.
func tree(kind, root, except string) []string {
	var s []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return nil //nolint:nilerr // it went while we looked
		}
		if path == except {
			return filepath.SkipDir
		}
		if kind == "cgroup" && !d.IsDir() {
			return nil
		}
		s = append(s, kind+" "+path)
		return nil
	})
	return s
}

// mustLookLike waits until the machine is as it was at want, and lists the differences when it does not become so. The
// kernel takes links and cgroups away in its own time, and a monitor leaves after its last pod.
func (n *node) mustLookLike(want []string, limit time.Duration) bool {
	n.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		diff := compare(want, n.look())
		if len(diff) == 0 {
			return true
		}
		if time.Now().After(end) {
			n.t.Errorf("after %v something is left or missing:\n  %s", limit, strings.Join(diff, "\n  "))
			return false
		}
	}
}

// compare lists what is in one of two sorted lists only.
func compare(before, after []string) []string {
	count := map[string]int{}
	for _, l := range before {
		count[l]--
	}
	for _, l := range after {
		count[l]++
	}
	var diff []string
	for l, c := range count {
		switch {
		case c > 0:
			diff = append(diff, fmt.Sprintf("+ %s (%d more)", l, c))
		case c < 0:
			diff = append(diff, fmt.Sprintf("- %s (%d fewer)", l, -c))
		}
	}
	slices.Sort(diff)
	return diff
}

// mustBeEmpty waits until nothing is there that a node without pods must not have, whatever it looked like before: this
// is what the other lists are held against.
func (n *node) mustBeEmpty() {
	n.t.Helper()
	for end := time.Now().Add(settled); ; time.Sleep(5 * time.Millisecond) {
		left := n.empty()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			n.t.Fatalf("after %v this is left:\n  %s", settled, strings.Join(left, "\n  "))
		}
	}
}

func (n *node) empty() []string {
	var s []string
	for _, l := range n.look() {
		for _, bad := range []string{
			"process ", "run " + n.run + "/pods/", "run " + n.run + "/netns/", "run " + n.run + "/monitors/", "state " + n.state + "/containers/", "state " + n.state + "/tomb/",
			"mount private " + n.run + "/", "mount host " + n.run + "/netns/", "mount host " + n.run + "/pods/", "cgroup /sys/fs/cgroup/memory/crash/pod/",
		} {
			if strings.HasPrefix(l, bad) {
				s = append(s, l)
			}
		}
		if rest, ok := strings.CutPrefix(l, "link "); ok && rest != "lo" && rest != "cri-mini0" {
			s = append(s, l)
		}
		if strings.HasPrefix(l, "nft") && strings.Contains(l, "elements") && strings.Contains(l, " : ") { // of a map
			s = append(s, l)
		}
	}
	return s
}
