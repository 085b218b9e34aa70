package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// hostCgroup holds the daemon, critest and the registry, so that the root of
// the cgroup namespace has no process of its own: a v2 cgroup with processes
// gives its children no controllers (cgroups(7), no internal processes).
const hostCgroup = "host"

// prepareNode turns the new namespaces into a node: / shared, /proc and /sys
// of these namespaces, the cgroup root the run's own, lo up.
func prepareNode(j job) error {
	// First private: what is mounted here must never reach the machine.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mountSys(j.Mounts); err != nil {
		return err
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	for _, m := range j.Mounts {
		if err := makeCgroup(filepath.Join(m.Dir, hostCgroup)); err != nil {
			return err
		}
	}
	if err := joinCgroups(j.Mounts, hostCgroup, 1, os.Getpid()); err != nil {
		return err
	}
	for _, m := range j.Mounts {
		if m.V2 {
			enableControllers(m.Dir)
		}
	}
	return loopbackUp()
}

// mountSys mounts a sysfs that shows the new network namespace, with what was
// mounted below the old one and the cgroup hierarchies anew.
func mountSys(cgroups []cgroupMount) error {
	kept, err := cloneMountsBelow("/sys")
	if err != nil {
		return err
	}
	links := symlinksIn("/sys/fs/cgroup")
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for at, fd := range kept {
		err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
		unix.Close(fd)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("move mount to %s: %w", at, err)
		}
	}
	if len(cgroups) != 1 || cgroups[0].Dir != "/sys/fs/cgroup" {
		if err := mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	for _, m := range cgroups {
		if err := os.MkdirAll(m.Dir, 0o755); err != nil {
			return err
		}
		fsType, options := "cgroup", m.Options
		if m.V2 {
			fsType, options = "cgroup2", ""
		}
		if err := mount(fsType, m.Dir, fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}

// cloneMountsBelow takes detached copies of the mounts directly below a
// directory, but for those of cgroups.
func cloneMountsBelow(dir string) (map[string]int, error) {
	points, err := mountPoints()
	if err != nil {
		return nil, err
	}
	clones := map[string]int{}
	for _, at := range points {
		if !strings.HasPrefix(at, dir+"/") || strings.HasPrefix(at+"/", "/sys/fs/cgroup/") {
			continue
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("clone mount %s: %w", at, err)
		}
		clones[at] = fd
	}
	return clones, nil
}

// mountPoints lists where something is mounted, sorted.
func mountPoints() ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var points []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points = append(points, fields[4])
		}
	}
	sort.Strings(points)
	return points, lines.Err()
}

// symlinksIn maps the links in a directory (cpu,cpuacct and the like) to
// their targets.
func symlinksIn(dir string) map[string]string {
	links := map[string]string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			links[filepath.Join(dir, e.Name())] = target
		}
	}
	return links
}

func mount(source, target, fsType string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fsType, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s (%s): %w", fsType, target, data, err)
	}
	return nil
}

// loopbackUp sets IFF_UP on lo (netdevice(7)).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
