package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// ours matches the names that this project gives to things.
var ours = regexp.MustCompile(`(?i)cri-?mini|mini-runc|kubepods`)

// take looks at the namespaces that this process is in.
func take() snapshot {
	s := snapshot{}
	for kind, look := range map[string]func() ([]string, error){
		"mount":        mounts,
		"cgroup":       cgroups,
		"netns":        func() ([]string, error) { return children("/run/netns") },
		"link":         links,
		"nft":          rules,
		"sysctl":       sysctls,
		"directory":    directories,
		"IPC object":   ipc,
		"loop device":  loops,
		"cni plugin's": func() ([]string, error) { return files("/var/lib/cni") },
	} {
		found, err := look()
		if err != nil {
			found = []string{"not counted: " + err.Error()}
		}
		slices.Sort(found)
		s[kind] = found
	}
	s["process"], s["container process"] = processes("/proc")
	return s
}

// mounts are named by place, type and source: the ids in mountinfo(5) mean
// nothing to the reader and change.
func mounts() ([]string, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(data)), nil
}

func parseMounts(data string) []string {
	var found []string
	for line := range strings.Lines(data) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if ok && len(f) >= 6 && len(g) >= 2 {
			found = append(found, fmt.Sprintf("%s (%s %s, root %s)", f[4], g[0], g[1], f[3]))
		}
	}
	return found
}

// cgroups are all directories of all hierarchies, less those of a running systemd
// and of what started us: sessions and services come and go while a test runs.
func cgroups() ([]string, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	theirs := append([]string{"/system.slice", "/user.slice", "/init.scope"}, parents(string(own))...)
	var found []string
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if len(f) < 5 || !strings.HasPrefix(after, "cgroup") {
			continue
		}
		found = append(found, directoriesBelow(f[4], theirs)...)
	}
	return found, nil
}

// parents are the groups in which whoever started us keeps one group for each of
// those that it starts (cgroups(7), /proc/pid/cgroup): what is beside ours is theirs.
func parents(own string) []string {
	var found []string
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if dir := filepath.Dir(f[len(f)-1]); len(f) == 3 && dir != "/" && dir != "." {
			found = append(found, dir)
		}
	}
	return found
}

// directoriesBelow root are those of its hierarchy, but for what is in theirs and
// does not bear a name of ours.
func directoriesBelow(root string, theirs []string) []string {
	var found []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == root {
			return nil //nolint:nilerr // it went while we looked
		}
		rel := strings.TrimPrefix(path, root)
		for _, dir := range theirs {
			if strings.HasPrefix(rel, dir+"/") && !ours.MatchString(rel) {
				return filepath.SkipDir
			}
		}
		found = append(found, path)
		return nil
	})
	return found
}

func links() ([]string, error) {
	all, err := net.Interfaces()
	var found []string
	for _, l := range all {
		found = append(found, l.Name)
	}
	return found, err
}

// rules are nftables' tables and chains; those of iptables-nft are among them.
func rules() ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, t := range tables {
		found = append(found, fmt.Sprintf("table %s %s", family(t.Family), t.Name))
	}
	for _, ch := range chains {
		found = append(found, fmt.Sprintf("chain %s %s %s", family(ch.Table.Family), ch.Table.Name, ch.Name))
	}
	return found, nil
}

func family(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprint(f)
}

// sysctlPatterns are the settings that a runtime, a CNI plugin or a kubelet turns
// on the host.
var sysctlPatterns = []string{
	"net/ipv4/ip_forward",
	"net/ipv4/conf/*/route_localnet",
	"net/ipv4/conf/*/rp_filter",
	"net/ipv4/conf/*/forwarding",
	"net/ipv4/ip_unprivileged_port_start",
	"net/ipv4/ping_group_range",
	"net/ipv6/conf/all/forwarding",
	"net/bridge/bridge-nf-call-*",
	"vm/overcommit_memory",
	"kernel/panic",
	"kernel/panic_on_oops",
	"kernel/hostname",
	"kernel/domainname",
	"kernel/shm*",
	"kernel/core_pattern",
	"user/max_*_namespaces",
}

func sysctls() ([]string, error) {
	var found []string
	for _, p := range sysctlPatterns {
		names, err := filepath.Glob("/proc/sys/" + p)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if data, err := os.ReadFile(n); err == nil {
				name := strings.ReplaceAll(strings.TrimPrefix(n, "/proc/sys/"), "/", ".")
				found = append(found, name+" = "+strings.TrimSpace(string(data)))
			}
		}
	}
	return found, nil
}

// directories are entries of ours where programs leave things.
func directories() ([]string, error) {
	var found []string
	for _, dir := range []string{"/run", "/var/lib", "/var/log", "/tmp", "/var/tmp", "/dev/shm", os.TempDir()} {
		names, err := children(dir)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if base := filepath.Base(n); ours.MatchString(base) || strings.HasPrefix(base, "Test") {
				found = append(found, n)
			}
		}
	}
	for _, dir := range []string{"/var/log/pods", "/var/log/containers", "/etc/cni/net.d"} {
		names, err := children(dir)
		if err != nil {
			return nil, err
		}
		found = append(found, names...)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// children returns the entries of a directory, none when there is no directory.
func children(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		found = append(found, filepath.Join(dir, e.Name()))
	}
	return found, nil
}

// files returns all files below a directory, none when there is no directory.
func files(dir string) ([]string, error) {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		return nil // it went while we looked, or there is no directory
	})
	return found, nil
}

// ipc are System V objects of the host: a pod with the host's IPC may leave some.
func ipc() ([]string, error) {
	var found []string
	for _, kind := range []string{"shm", "sem", "msg"} {
		data, err := os.ReadFile("/proc/sysvipc/" + kind)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
			if f := strings.Fields(line); i > 0 && len(f) > 1 {
				found = append(found, kind+" "+f[1])
			}
		}
	}
	return found, nil
}

func loops() ([]string, error) {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var found []string
	for _, b := range backing {
		if data, err := os.ReadFile(b); err == nil {
			found = append(found, strings.TrimSpace(string(data)))
		}
	}
	return found, err
}
