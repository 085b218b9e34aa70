package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPrefix is the name, with a PID behind it, of the one cgroup that a
// run makes in each hierarchy.
const cgroupPrefix = "cri-mini-critest-"

// cgroupMount is one mounted hierarchy.
type cgroupMount struct {
	Dir     string // mount point
	V2      bool
	Options string // what a mount of the same v1 hierarchy must ask for
}

// findCgroups reads the hierarchies from mountinfo (proc_pid_mountinfo(5)).
func findCgroups() ([]cgroupMount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var mounts []cgroupMount
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 || (right[0] != "cgroup" && right[0] != "cgroup2") {
			continue
		}
		m := cgroupMount{Dir: left[4], V2: right[0] == "cgroup2"}
		options := slices.DeleteFunc(strings.Split(right[2], ","), func(o string) bool {
			return o == "rw" || o == "ro" || o == "clone_children" || strings.HasPrefix(o, "release_agent=")
		})
		m.Options = strings.Join(options, ",")
		mounts = append(mounts, m)
	}
	return mounts, lines.Err()
}

// makeCgroups makes the run's cgroup in each hierarchy, ready for children.
func makeCgroups(mounts []cgroupMount, name string) error {
	for _, m := range mounts {
		if m.V2 {
			enableControllers(m.Dir)
		}
		if err := makeCgroup(filepath.Join(m.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// makeCgroup makes one directory. In a v1 cpuset it is useless until it has
// cpus and memory nodes (cgroups(7)); they are the parent's.
func makeCgroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), value, 0o644); err != nil && len(strings.TrimSpace(string(value))) > 0 {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

// enableControllers lets the children of a v2 cgroup have what it has. One
// that refuses is one the daemon under test will report.
func enableControllers(dir string) {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(list)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

func joinCgroups(mounts []cgroupMount, name string, pids ...int) error {
	for _, m := range mounts {
		for _, pid := range pids {
			if err := os.WriteFile(filepath.Join(m.Dir, name, "cgroup.procs"), []byte(fmt.Sprint(pid)), 0o644); err != nil {
				return fmt.Errorf("join cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeCgroups removes the run's cgroups with all below, children first. Only
// rmdir works on them, and only when no process is inside.
func removeCgroups(mounts []cgroupMount, name string) error {
	var failed error
	for _, m := range mounts {
		dirs := cgroupsBelow(filepath.Join(m.Dir, name))
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				failed = errors.Join(failed, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return failed
}

// rmdir waits a little for processes that were killed and are on their way.
func rmdir(dir string) error {
	var err error
	for range 100 {
		if err = unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// cgroupsBelow lists a cgroup and its descendants, parents first.
func cgroupsBelow(dir string) []string {
	var dirs []string
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, name)
		}
		return nil
	})
	return dirs
}

// removeStaleCgroups removes those of runs that were killed.
func removeStaleCgroups(mounts []cgroupMount) {
	for _, m := range mounts {
		found, _ := filepath.Glob(filepath.Join(m.Dir, cgroupPrefix+"*"))
		for _, dir := range found {
			pid := strings.TrimPrefix(filepath.Base(dir), cgroupPrefix)
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
				_ = removeCgroups([]cgroupMount{m}, filepath.Base(dir))
			}
		}
	}
}
