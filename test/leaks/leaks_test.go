package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestCompare(t *testing.T) {
	tests := []struct {
		name          string
		before, after snapshot
		want          []string
	}{
		{"same", snapshot{"link": {"lo"}}, snapshot{"link": {"lo"}}, nil},
		{"more", snapshot{"link": {"lo"}}, snapshot{"link": {"lo", "veth1"}}, []string{"+ link veth1"}},
		{"twice on one place", snapshot{"mount": {"/m"}}, snapshot{"mount": {"/m", "/m"}}, []string{"+ mount /m"}},
		{"less", snapshot{"netns": {"/run/netns/x"}}, snapshot{}, []string{"- netns /run/netns/x"}},
		{"changed", snapshot{"sysctl": {"a = 0"}}, snapshot{"sysctl": {"a = 1"}}, []string{"- sysctl a = 0", "+ sysctl a = 1"}},
		{"a process that ends", snapshot{"process": {"1 cri-mini"}}, snapshot{}, nil},
		{"a process that stays", snapshot{}, snapshot{"process": {"1 cri-mini"}}, []string{"+ process 1 cri-mini"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, compare(tt.before, tt.after)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseMounts(t *testing.T) {
	const data = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:4 net:[4026532] /run/netns/x rw shared:4 - nsfs nsfs rw
nonsense
`
	want := []string{"/ (ext4 /dev/vda, root /)", "/run/netns/x (nsfs nsfs, root net:[4026532])"}
	if d := cmp.Diff(want, parseMounts(data)); d != "" {
		t.Error(d)
	}
}

func TestCgroupsOfSystemdAreNotOurs(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"kubepods/podx/c", "system.slice/ssh.service", "system.slice/cri-mini.service", "user.slice/user-0.slice", "jobs/1", "jobs/cri-mini-left"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	theirs := append([]string{"/system.slice", "/user.slice"}, parents("1:cpu:/\n4:memory:/jobs/2\n0::/\n")...)
	for _, d := range directoriesBelow(root, theirs) {
		got = append(got, strings.TrimPrefix(d, root))
	}
	want := []string{"/jobs", "/jobs/cri-mini-left", "/kubepods", "/kubepods/podx", "/kubepods/podx/c", "/system.slice", "/system.slice/cri-mini.service", "/user.slice"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// What is left here on purpose is seen, and not seen when it is gone. Other tests
// run beside this one, so it looks for its own lines only.
func TestDirectoryIsSeen(t *testing.T) {
	before := take()
	dir, err := os.MkdirTemp("", "cri-mini-leaks-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	line := "+ directory " + dir
	if lines := compare(before, take()); !slices.Contains(lines, line) {
		t.Errorf("with %s: %q", dir, lines)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if lines := compare(before, take()); slices.Contains(lines, line) {
		t.Errorf("after: %q", lines)
	}
}

func TestKernelObjectsAreSeen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes mounts, links and tables in namespaces of its own")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with its namespaces
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	step("unshare", unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_NEWNET))
	step("make / private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir := t.TempDir()
	before := take()

	step("mount", unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "leak0"}}
	step("add link", netlink.LinkAdd(link))
	nft, err := nftables.New()
	step("nftables", err)
	table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "leak"})
	nft.AddChain(&nftables.Chain{Table: table, Name: "chain"})
	step("add table", nft.Flush())
	step("sysctl", os.WriteFile("/proc/sys/net/ipv4/conf/leak0/route_localnet", []byte("1"), 0))

	lines := compare(before, take())
	for _, want := range []string{
		"+ mount " + dir + " (tmpfs tmpfs, root /)",
		"+ link leak0",
		"+ nft table ip leak",
		"+ nft chain ip leak chain",
		"+ sysctl net.ipv4.conf.leak0.route_localnet = 1",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is missing in %q", want, lines)
		}
	}
	step("unmount", unix.Unmount(dir, 0))
	step("remove link", netlink.LinkDel(link))
	nft.DelTable(table)
	step("remove table", nft.Flush())
	for _, l := range compare(before, take()) {
		if strings.Contains(l, dir) || strings.Contains(l, "leak") {
			t.Errorf("after: %s", l)
		}
	}
}

func TestSnapshotSurvivesJSON(t *testing.T) {
	s := take()
	var b bytes.Buffer
	if err := write(&b, s); err != nil {
		t.Fatal(err)
	}
	var back snapshot
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if lines := compare(s, back); len(lines) != 0 {
		t.Error(lines)
	}
}
