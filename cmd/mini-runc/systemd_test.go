package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
)

// systemdBundle is a bundle whose container has a scope. Commands after create and run are not told of systemd.
func systemdBundle(t *testing.T, script, cgroupsPath string) *bundleDir {
	t.Helper()
	b := newBundle(t, script)
	if _, _, err := cgroup.ChooseDriver(t.Context(), host.DriverSystemd, cgroup.Layout{}); err != nil {
		t.Skipf("needs systemd as PID 1, as the test node has it: %v", err)
	}
	b.spec.Linux.CgroupsPath = cgroupsPath
	return b
}

// show gives a property as systemctl shows it.
func show(t *testing.T, unit, property string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", unit, "-p", property, "--value").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func unitGone(t *testing.T, unit string) {
	t.Helper()
	if got := show(t, unit, "LoadState"); got != "not-found" {
		t.Errorf("%s: LoadState=%s", unit, got)
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, _ := filepath.Glob(pattern + "/system.slice/" + unit); len(left) > 0 {
			t.Errorf("left cgroups: %v", left)
		}
	}
}

// limitProperty is systemd's word for a memory limit: it depends on the hierarchy.
func limitProperty() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "MemoryMax"
	}
	return "MemoryLimit"
}

func TestSystemdLife(t *testing.T) {
	id := fmt.Sprint("life", os.Getpid())
	b := systemdBundle(t, "echo up; while :; do sleep 1; done", "system.slice:mini_runc_test:"+id)
	scope := "mini_runc_test-" + id + ".scope"
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}}
	b.spec.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.CollectMode": "'inactive'", "other": "x"}
	b.write()
	b.ok("--systemd-cgroup", "create", id)
	for property, value := range map[string]string{
		"ActiveState": "active", "Slice": "system.slice", "Delegate": "yes", "TimeoutStopUSec": "7s", "CollectMode": "inactive", limitProperty(): "67108864",
	} {
		want(t, property+"="+show(t, scope, property), property+"="+value)
	}
	b.fails("already exists", "--systemd-cgroup", "create", id)
	b.ok("start", id)
	b.ok("update", "--memory", "48M", "--memory-swap", "48M", "--pids-limit", "33", id)
	want(t, show(t, scope, limitProperty()), "50331648")
	want(t, show(t, scope, "TasksMax"), "33")
	in := b.ok("exec", id, "busybox", "cat", "/proc/self/cgroup")
	if self, _ := os.ReadFile("/proc/self/cgroup"); in == string(self) {
		t.Errorf("an exec is in our own cgroups:\n%s", in)
	}
	var pids []int
	must(t, json.Unmarshal([]byte(b.ok("ps", "--format", "json", id)), &pids))
	if len(pids) == 0 {
		t.Error("ps lists nobody")
	}
	b.ok("pause", id)
	want(t, b.status(id), "paused")
	b.ok("resume", id)
	b.ok("kill", id, "KILL")
	b.ok("delete", "--force", id)
	unitGone(t, scope)
}

// What runc's docs/systemd.md says of a container without a cgroupsPath, or with one that leaves the slice out.
func TestSystemdDefaultName(t *testing.T) {
	for name, path := range map[string]string{"none": "", "no slice": ":runc:%s"} {
		t.Run(name, func(t *testing.T) {
			id := fmt.Sprint("default", os.Getpid())
			b := systemdBundle(t, "while :; do sleep 1; done", "")
			if path != "" {
				b.spec.Linux.CgroupsPath = fmt.Sprintf(path, id)
			}
			b.write()
			b.spec.Linux.CgroupsPath = "/system.slice/runc-" + id + ".scope" // where the harness looks for what is left
			b.ok("--systemd-cgroup", "run", "--detach", id)
			want(t, show(t, "runc-"+id+".scope", "Slice"), "system.slice")
			b.ok("exec", id, "busybox", "true")
			b.ok("pause", id)
			b.ok("resume", id)
			b.ok("delete", "--force", id)
			unitGone(t, "runc-"+id+".scope")
		})
	}
}

// A start that fails leaves no scope, and says in whose words it failed.
func TestSystemdFailedStart(t *testing.T) {
	id := fmt.Sprint("failed", os.Getpid())
	b := systemdBundle(t, "true", "system.slice:mini_runc_test:"+id)
	b.spec.Process.Args = []string{"/no/such/program"}
	b.write()
	b.fails("exec /no/such/program: no such file or directory", "--systemd-cgroup", "run", id)
	unitGone(t, "mini_runc_test-"+id+".scope")
	b.spec.Annotations = map[string]string{"org.systemd.property.Nonsense": "true"}
	b.write()
	b.fails("unit_start system.slice::mini_runc_test-"+id+".scope", "--systemd-cgroup", "run", id)
	unitGone(t, "mini_runc_test-"+id+".scope")
}

// The end of a container in the foreground: systemd removes the scope before us, and what it was killed for is known.
func TestSystemdRun(t *testing.T) {
	id := fmt.Sprint("run", os.Getpid())
	b := systemdBundle(t, "exit 3", "system.slice:mini_runc_test:"+id)
	b.write()
	for range 5 {
		if r := b.mini("--systemd-cgroup", "run", id); r.code != 3 || r.err != "" {
			t.Errorf("exit status %d: %s", r.code, r.err)
		}
		unitGone(t, "mini_runc_test-"+id+".scope")
	}
}

// Compiling needs no systemd.
func TestSystemdPlan(t *testing.T) {
	b := newBundle(t, "true")
	for _, tt := range []struct{ name, path, says string }{
		{"a path", "/kubepods/x", "linux.cgroupsPath: "},
		{"two parts", "a.slice:x", "slice:prefix:name"},
		{"slice with a path", "a.slice/a-b.slice:p:x", "linux.cgroupsPath: "},
		{"a slice for a container", "a.slice:p:a-x.slice", "processes are in a scope"},
		{"no slice", "kubepods:p:x", "does not end in .slice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.spec.Linux.CgroupsPath = tt.path
			b.write()
			b.fails(tt.says, "--systemd-cgroup", "plan")
		})
	}
	b.spec.Linux.CgroupsPath = "user-1000.slice:p:x"
	b.spec.Annotations = map[string]string{"org.systemd.property.CollectMode": "'inactive'", "org.systemd.property.After": "['a.service']"}
	b.write()
	if text := b.ok("--systemd-cgroup", "plan"); !strings.Contains(text, `unit_start      unit=user-1000.slice::p-x.scope path=/user.slice/user-1000.slice/p-x.scope properties=["After=['a.service']" CollectMode='inactive']`) {
		t.Errorf("plan:\n%s", text)
	}
	for annotation, says := range map[string]string{"org.systemd.property.Slice": "is decided by linux.cgroupsPath", "org.systemd.property.A_B": "not the name of a property", "org.systemd.property.Ab": "three letters"} {
		b.spec.Annotations = map[string]string{annotation: "'x'"}
		b.write()
		b.fails(says, "--systemd-cgroup", "plan")
	}
}

func TestSystemdCannotBeReached(t *testing.T) {
	b := newBundle(t, "true")
	if cgroup.FindSystemd() == nil {
		t.Skip("systemd runs here")
	}
	b.spec.Linux.CgroupsPath = "system.slice:runc:x"
	b.write()
	b.fails("--systemd-cgroup: systemd cannot be reached", "--systemd-cgroup", "run", "x")
}

// Nobody but root can have systemd make a scope: that is said before anything is made.
func TestSystemdWithoutRoot(t *testing.T) {
	b := systemdBundle(t, "true", "system.slice:mini_runc_test:x")
	b.write()
	must(t, os.Chmod(b.dir, 0o755))
	must(t, os.Chmod(programs, 0o755))
	cmd := b.command("--systemd-cgroup", "run", "x")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if r := b.call(cmd); r.code == 0 || !strings.Contains(r.err, "--systemd-cgroup: systemd cannot be reached: /run/systemd/private: permission denied: it takes the machine's root") {
		t.Errorf("exit status %d: %s", r.code, r.err)
	}
}
