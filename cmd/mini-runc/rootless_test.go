package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/host"
)

// lockForGood keeps a goroutine on its thread, which ends with it.
func lockForGood() { runtime.LockOSThread() }

func asUser(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}

const someone = 1000

// newRootless makes a bundle of uid 1000's, with what `spec --rootless` says and a script.
func newRootless(t *testing.T, script string) *bundleDir {
	b := newBundle(t, script)
	b.spec = b.spec2rootless()
	must(t, filepath.Walk(b.dir, func(path string, _ os.FileInfo, err error) error {
		must(t, err)
		return os.Lchown(path, someone, someone)
	}))
	b.user = someone
	b.write()
	return b
}

func (b *bundleDir) spec2rootless() *specs.Spec {
	s := *b.spec
	l := *s.Linux
	s.Linux = &l
	withoutRoot(&s)
	l.CgroupsPath = ""
	l.UIDMappings = []specs.LinuxIDMapping{{HostID: someone, Size: 1}}
	l.GIDMappings = []specs.LinuxIDMapping{{HostID: someone, Size: 1}}
	return &s
}

// TestRootless is a life as a user without any privilege.
func TestRootless(t *testing.T) {
	b := newRootless(t, "echo $(busybox id -u) $(busybox id -g); busybox touch /tmp/mine; exec busybox sleep 1000")
	b.spec.Root.Readonly = false
	b.write()
	b.ok("create", "--pid-file", "pid", "x")
	want(t, b.status("x"), "created")
	b.ok("start", "x")
	want(t, b.status("x"), "running")
	pid := b.pid("x")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	if !strings.Contains(string(status), "\nUid:\t1000\t1000\t1000\t1000\n") {
		t.Errorf("%s", status)
	}
	for name, text := range map[string]string{"uid_map": "0 1000 1", "gid_map": "0 1000 1", "setgroups": "deny"} {
		got, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		must(t, err)
		want(t, strings.Join(strings.Fields(string(got)), " "), text)
	}
	waitText(t, fmt.Sprintf("/proc/%d/cmdline", pid), "busybox\x00sleep") // its last step
	want(t, b.ok("exec", "x", "sh", "-c", "busybox id -u; busybox hostname; busybox ps | busybox grep -c [s]leep"), "0\nrunc\n1\n")
	waitFile(t, filepath.Join(b.dir, "rootfs/tmp/mine"))
	if info, err := os.Stat(filepath.Join(b.dir, "rootfs/tmp/mine")); err != nil || info.Sys().(*syscall.Stat_t).Uid != someone {
		t.Errorf("%v %v", info, err)
	}
	var l []map[string]any
	must(t, json.Unmarshal([]byte(b.ok("list", "-f", "json")), &l))
	if len(l) != 1 || l[0]["status"] != "running" {
		t.Errorf("%v", l)
	}
	b.fails("it has no cgroup", "pause", "x")
	b.fails("it has no cgroup", "ps", "x")
	b.fails("cannot delete container x that is not stopped: running", "delete", "x")
	b.ok("kill", "x", "KILL")
	b.waitStatus("x", "stopped")
	b.ok("delete", "x")
	b.nothingLeft()
	b.spec.Process.Args[2] = "exit 3"
	b.write()
	if r := b.mini("run", "x"); r.code != 3 || r.err != "" {
		t.Errorf("%+v", r)
	}
}

func waitFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s", path)
		}
	}
}

// TestRootlessLimits: what a container without a cgroup cannot have is refused, and --rootless=false wants one.
func TestRootlessLimits(t *testing.T) {
	b := newRootless(t, "true")
	limit := int64(1 << 20)
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	b.write()
	b.fails("cannot set memory limit: container could not join or create cgroup", "run", "x")
	b.spec.Linux.Resources = nil
	b.write()
	b.fails("permission denied", "--rootless=false", "run", "x")
	b.spec.Linux.CgroupsPath = ours + "/not-permitted"
	b.write()
	b.fails("permission denied", "run", "x")
	b.spec.Linux.CgroupsPath = ""
	b.spec.Process.User.AdditionalGids = []uint32{7}
	b.write()
	b.fails("cannot set any additional groups in a rootless container", "run", "x")
	b.nothingLeft()
}

// TestRootlessCgroup: a group that was delegated is used, limits included.
func TestRootlessCgroup(t *testing.T) {
	if pureV2() {
		t.Skip("on v2 a user moves nobody out of a group that is not his own (cgroups(7)): a login session would be in it")
	}
	b := newRootless(t, "exec busybox sleep 1000")
	delegated := ours + "-delegated"
	b.delegate(delegated)
	limit := int64(50)
	b.spec.Linux.CgroupsPath = delegated + "/x"
	b.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	b.write()
	b.ok("run", "-d", "x")
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.pid("x")))
	must(t, err)
	if !strings.Contains(string(group), "pids:"+delegated+"/x\n") {
		t.Errorf("it is in\n%s", group)
	}
	b.ok("exec", "x", "busybox", "true")
	want(t, b.ok("ps", "-f", "json", "x"), fmt.Sprintf("[%d]\n", b.pid("x")))
	b.ok("update", "--pids-limit", "40", "x")
	text, err := os.ReadFile("/sys/fs/cgroup/pids" + delegated + "/x/pids.max")
	must(t, err)
	want(t, string(text), "40\n")
	b.ok("pause", "x")
	want(t, b.status("x"), "paused")
	b.ok("resume", "x")
	b.ok("delete", "-f", "x")
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + delegated + "/x"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// delegate makes a group that belongs to the user in every hierarchy.
func (b *bundleDir) delegate(path string) {
	b.t.Helper()
	facts, err := host.Probe()
	must(b.t, err)
	mounts := map[string]bool{}
	for _, m := range facts.Cgroup.Mounts {
		mounts[m] = true
	}
	if facts.Cgroup.Unified != "" {
		mounts[facts.Cgroup.Unified] = true
	}
	for m := range mounts {
		dir := m + path
		must(b.t, os.Mkdir(dir, 0o755))
		b.t.Cleanup(func() { must(b.t, os.Remove(dir)) })
		must(b.t, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
			must(b.t, err)
			return os.Lchown(path, someone, someone)
		}))
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // a v1 cpuset begins without any
			if value, err := os.ReadFile(filepath.Join(m, file)); err == nil && strings.HasSuffix(m, "/cpuset") {
				must(b.t, os.WriteFile(filepath.Join(dir, file), value, 0))
			}
		}
	}
}

// TestRootlessMaps: more ids than one's own are written by newuidmap and newgidmap.
func TestRootlessMaps(t *testing.T) {
	needCompiler(t)
	b := newRootless(t, "true")
	more := []specs.LinuxIDMapping{{HostID: someone, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 1000}}
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = more, more
	b.write()
	// The tools are stood in for: the real ones read /etc/subuid, which is the machine's.
	tools := filepath.Join(b.dir, "tools")
	must(t, os.Mkdir(tools, 0o755))
	cmd := b.command("run", "x")
	cmd.Env = []string{"PATH=" + tools}
	if r := b.call(cmd); r.code == 0 || !strings.Contains(r.err, "newuidmap, which could do it") {
		t.Errorf("%+v", r)
	}
	for _, kind := range []string{"uid", "gid"} {
		source := filepath.Join(b.dir, kind+".c")
		must(t, os.WriteFile(source, []byte(fmt.Sprintf(mapTool, kind)), 0o644))
		tool := filepath.Join(tools, "new"+kind+"map")
		if out, err := exec.Command("gcc", "-static", "-o", tool, source).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
		must(t, os.Chmod(tool, os.ModeSetuid|0o755))
	}
	b.spec.Process.Args[2] = "busybox cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups | busybox tr -s ' '"
	b.spec.Process.User.AdditionalGids = []uint32{7}
	b.write()
	cmd = b.command("run", "x")
	cmd.Env = []string{"PATH=" + tools}
	const m = " 0 1000 1\n 1 100000 1000\n"
	want(t, fmt.Sprint(b.call(cmd)), fmt.Sprint(result{out: m + m + "allow\n"}))
}

// mapTool writes what its arguments say, as newuidmap(1) does after it has looked into /etc/subuid.
const mapTool = `
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%%s/%s_map", argv[1]);
	if (setuid(0))
		return 2;
	FILE *f = fopen(path, "w");
	for (int i = 2; f && i + 2 < argc; i += 3)
		fprintf(f, "%%s %%s %%s\n", argv[i], argv[i + 1], argv[i + 2]);
	return !f || fclose(f) != 0;
}
`

// TestOwnGroup: where a group of one's own goes.
func TestOwnGroup(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "user.slice/app"), 0o755))
	for _, tc := range []struct {
		name string
		c    host.Cgroup
		want string
		ok   bool
	}{
		{"v2: beside our own", host.Cgroup{Mode: host.CgroupV2, Unified: dir, Own: map[string]string{"": "/user.slice/app"}}, "/user.slice/x", true},
		{"v2: in the root", host.Cgroup{Mode: host.CgroupV2, Unified: dir, Own: map[string]string{"": "/"}}, "/x", true},
		{"v2: not permitted", host.Cgroup{Mode: host.CgroupV2, Unified: "/proc", Own: map[string]string{"": "/gone/away"}}, "/gone/x", false},
		{"v1: below our own", host.Cgroup{Mode: host.CgroupV1, Mounts: map[string]string{"pids": dir, "name=systemd": dir}, Own: map[string]string{"pids": "/user.slice", "name=systemd": "/user.slice"}}, "/user.slice/x", true},
		{"v1: two names", host.Cgroup{Mode: host.CgroupV1, Mounts: map[string]string{"pids": dir, "cpu": dir}, Own: map[string]string{"pids": "/user.slice", "cpu": "/"}}, "", false},
		{"none", host.Cgroup{Mode: host.CgroupV1}, "/x", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := ownGroup(tc.c, "x"); ok != tc.ok || ok && got != tc.want {
				t.Errorf("%q, %v", got, ok)
			}
		})
	}
	a := &app{log: &logger{}, rootless: rootless{set: true, yes: true}, facts: host.Facts{Cgroup: host.Cgroup{Mode: host.CgroupV1}}}
	o := compile.Options{ID: "x"}
	a.chooseGroup(exampleSpec(false), &o)
	if !o.NoCgroup {
		t.Error("there is no group to be had, and one is planned")
	}
}
