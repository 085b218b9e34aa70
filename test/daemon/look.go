package daemon

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Look lists all that is on this machine and that a runtime could have made, one sorted line each: processes, mounts
// (those of the daemon's private mount namespace too), cgroups, links, firewall rules, and the daemon's directories
// but the content of its image store.
func (d *Daemon) Look() []string {
	var s []string
	s = append(s, d.processes()...)
	s = append(s, mountsOf("host", "/proc/self/mountinfo")...)
	s = append(s, d.privateMounts()...)
	for _, root := range Hierarchies() {
		s = append(s, tree("cgroup", root, "", true)...)
	}
	s = append(s, tree("run", d.Run, "", false)...)
	s = append(s, tree("state", d.State, filepath.Join(d.State, "images"), false)...)
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
	for i := range s {
		s[i] = monitor.ReplaceAllString(s[i], "monitors/*.sock") // one leaves with its last pod, another may come
	}
	slices.Sort(s)
	return s
}

var monitor = regexp.MustCompile(`monitors/[0-9a-z]+\.sock`)

// Difference lists what is in one of two sorted lists only, "+" for what is new.
func Difference(before, after []string) []string {
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

// Hierarchies are the mount points of cgroups.
func Hierarchies() []string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && strings.HasPrefix(after, "cgroup") {
			found = append(found, f[4])
		}
	}
	return found
}

// MakeCgroup makes a pod's parent in every hierarchy, as kubelet does.
func MakeCgroup(path string) error {
	for _, root := range Hierarchies() {
		dir := root
		for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			parent := dir
			dir = filepath.Join(dir, name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // empty in a new v1 cpuset (cpusets(7))
				if b, err := os.ReadFile(filepath.Join(parent, file)); err == nil && len(b) > 1 {
					_ = os.WriteFile(filepath.Join(dir, file), b, 0)
				}
			}
		}
	}
	return nil
}

// processes are all in this PID namespace but us, PID 1 and the daemon; zombies count.
func (d *Daemon) processes() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []string{"process: " + err.Error()}
	}
	var s []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() || pid == d.PID() {
			continue
		}
		st, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it went while we looked
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		args := strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		name := command(string(st))
		if strings.HasPrefix(args, "cri-mini-init monitor ") && strings.Trim(name, "0123456789") == "" {
			name = "cri-mini-monito" // it has not come to giving itself its name: exec by a descriptor names it by its number
		}
		s = append(s, fmt.Sprintf("process %s: %s", name, args))
	}
	return s
}

// command gives the name in /proc/PID/stat, and says when only a zombie is left of it.
func command(stat string) string {
	name, rest, _ := strings.Cut(stat, ") ")
	_, name, _ = strings.Cut(name, "(")
	if strings.HasPrefix(rest, "Z") {
		name += " (zombie)"
	}
	return name
}

func mountsOf(where, mountinfo string) []string {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil // of a thread that has ended
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
func (d *Daemon) privateMounts() []string {
	if d.PID() == 0 {
		return nil
	}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", d.PID()))
	for _, task := range tasks {
		if ns, err := os.Readlink(filepath.Join(task, "ns/mnt")); err == nil && ns != own {
			return mountsOf("private", filepath.Join(task, "mountinfo"))
		}
	}
	return nil
}

// tree lists the names below a directory, without one subtree.
func tree(kind, root, except string, directories bool) []string {
	var s []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return nil //nolint:nilerr // it went while we looked
		}
		if path == except {
			return filepath.SkipDir
		}
		if !directories || d.IsDir() {
			s = append(s, kind+" "+path)
		}
		return nil
	})
	return s
}
