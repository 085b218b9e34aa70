package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one line of /proc/self/mountinfo (proc(5)), as far as it matters here.
type mount struct {
	major, minor uint32
	root, point  string
	fstype       string
	superOptions string
}

// cgroupMounts picks the cgroup lines out of a mountinfo file, in its order. A
// node with many pods has thousands of lines, so others are dropped unparsed.
func cgroupMounts(mountinfo []byte) ([]mount, error) {
	var found []mount
	for line := range bytes.Lines(mountinfo) {
		if !bytes.Contains(line, []byte(" - cgroup")) {
			continue
		}
		m, err := parseMount(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return nil, err
		}
		if m.fstype == "cgroup" || m.fstype == "cgroup2" {
			found = append(found, m)
		}
	}
	return found, nil
}

// parseMount reads "id parent major:minor root point options [tags...] - type source super".
func parseMount(line string) (mount, error) {
	head, tail, ok := strings.Cut(line, " - ")
	fields, super := strings.Fields(head), strings.Fields(tail)
	if !ok || len(fields) < 6 || len(super) < 3 {
		return mount{}, fmt.Errorf("parse mountinfo line %q: too few fields", line)
	}
	majorText, minorText, _ := strings.Cut(fields[2], ":")
	major, err1 := strconv.ParseUint(majorText, 10, 32)
	minor, err2 := strconv.ParseUint(minorText, 10, 32)
	if err1 != nil || err2 != nil {
		return mount{}, fmt.Errorf("parse mountinfo line %q: device %q", line, fields[2])
	}
	return mount{
		major: uint32(major), minor: uint32(minor),
		root: UnescapeMount(fields[3]), point: UnescapeMount(fields[4]),
		fstype: super[0], superOptions: super[2],
	}, nil
}

// UnescapeMount undoes the octal escapes of blanks, newlines and backslashes in mountinfo (proc_pid_mountinfo(5)).
func UnescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// better reports whether a is a more canonical place than b to reach one
// hierarchy: it shows the whole of it, lies under /sys/fs/cgroup, is short.
func better(a, b mount) bool {
	if (a.root == "/") != (b.root == "/") {
		return a.root == "/"
	}
	const usual = "/sys/fs/cgroup"
	if au, bu := strings.HasPrefix(a.point, usual), strings.HasPrefix(b.point, usual); au != bu {
		return au
	}
	return len(a.point) < len(b.point)
}

// chooseMounts finds the canonical mount point of each hierarchy. visible says
// whether a mount is not hidden under another one.
func chooseMounts(mounts []mount, visible func(mount) bool) Cgroup {
	cg := Cgroup{Mounts: map[string]string{}}
	best := map[string]mount{}
	for _, m := range mounts {
		for _, key := range hierarchyKeys(m) {
			if old, ok := best[key]; ok && !better(m, old) || !visible(m) {
				continue
			}
			best[key] = m
		}
	}
	for key, m := range best {
		if key == "" {
			cg.Unified = m.point
		} else {
			cg.Mounts[key] = m.point
		}
	}
	return cg
}

// hierarchyKeys names the controllers of a mount: "" for the v2 hierarchy. The
// super options of v1 mix controllers with flags such as "clone_children".
func hierarchyKeys(m mount) []string {
	if m.fstype == "cgroup2" {
		return []string{""}
	}
	var keys []string
	for option := range strings.SplitSeq(m.superOptions, ",") {
		switch option {
		case "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio",
			"pids", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc":
			keys = append(keys, option)
		default:
			if strings.HasPrefix(option, "name=") {
				keys = append(keys, option)
			}
		}
	}
	return keys
}

// mode decides by what has controllers: named v1 hierarchies have none.
func (c Cgroup) mode() string {
	v1 := false
	for key := range c.Mounts {
		v1 = v1 || !strings.HasPrefix(key, "name=")
	}
	switch {
	case v1 && len(c.UnifiedControllers) > 0:
		return CgroupHybrid
	case v1 || c.Unified == "":
		return CgroupV1
	}
	return CgroupV2
}

// parseOwn reads /proc/self/cgroup: "id:controller,controller:path" lines.
func parseOwn(data []byte) map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		for controller := range strings.SplitSeq(controllers, ",") {
			own[controller] = path
		}
	}
	return own
}

// resctrlMount finds the resctrl file system.
func resctrlMount(mountinfo []byte) string {
	for line := range bytes.Lines(mountinfo) {
		if bytes.Contains(line, []byte(" - resctrl ")) {
			if m, err := parseMount(strings.TrimSuffix(string(line), "\n")); err == nil && m.root == "/" {
				return m.point
			}
		}
	}
	return ""
}

// ProbeCgroup is the part of [Probe] that commands need which start nothing.
func ProbeCgroup() (Cgroup, error) {
	mountinfo, err := readFile("/proc/self/mountinfo")
	if err != nil {
		return Cgroup{}, err
	}
	return probeCgroup(mountinfo)
}

// probeCgroup reads where the hierarchies are and which cgroup we are in.
func probeCgroup(mountinfo []byte) (Cgroup, error) {
	mounts, err := cgroupMounts(mountinfo)
	if err != nil {
		return Cgroup{}, err
	}
	cg := chooseMounts(mounts, func(m mount) bool {
		var st unix.Stat_t
		return unix.Stat(m.point, &st) == nil && st.Dev == unix.Mkdev(m.major, m.minor)
	})
	own, err := readFile("/proc/self/cgroup")
	if err != nil {
		return Cgroup{}, err
	}
	cg.Own = parseOwn(own)
	if cg.Unified != "" {
		controllers, err := readFile(filepath.Join(cg.Unified, "cgroup.controllers"))
		if err != nil {
			return Cgroup{}, err
		}
		cg.UnifiedControllers = strings.Fields(string(controllers))
	}
	cg.Mode = cg.mode()
	return cg, nil
}

// swapAccounting reports whether the memory controller has swap limits. On v2
// the root cgroup has no such file, so our own is looked at, or the kernel's.
func (c Cgroup) swapAccounting() bool {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	if dir, ok := c.Mounts["memory"]; ok {
		return exists(filepath.Join(dir, "memory.memsw.limit_in_bytes"))
	}
	own := filepath.Join(c.Unified, c.Own[""])
	if exists(filepath.Join(own, "memory.max")) {
		return exists(filepath.Join(own, "memory.swap.max"))
	}
	return exists("/proc/swaps")
}
