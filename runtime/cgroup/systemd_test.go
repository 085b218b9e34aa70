package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/host"
)

// systemdTree returns the tree of a machine whose PID 1 is systemd, and the name
// of a slice of our own, which is gone with all in it afterwards.
func systemdTree(t *testing.T) (*Tree, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make units")
	}
	if _, err := systemdAnswers(t.Context(), systemdSocket); err != nil {
		t.Skipf("needs systemd as PID 1, as the test node has it: %v", err)
	}
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := New(Config{Layout: Layout(facts.Cgroup)})
	if err != nil {
		t.Fatal(err)
	}
	slice := fmt.Sprintf("cri_mini_test%d.slice", os.Getpid())
	if err := tree.Create(t.Context(), slice, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(tree.Kill(ctx, slice), tree.Remove(ctx, slice)); err != nil || tree.Exists(slice) {
			t.Errorf("clean up: %v", err)
		}
		if out, _ := exec.Command("systemctl", "list-units", "--all", "--no-legend", "cri_mini_test*", "t-*").Output(); len(out) > 0 {
			t.Errorf("systemd still has\n%s", out)
		}
	})
	return tree, slice
}

// process starts a shell that runs a script once its standard input ends.
func process(t *testing.T, script string) (cmd *exec.Cmd, run func()) {
	t.Helper()
	cmd = exec.Command("/bin/sh", "-c", "read x; "+script)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, func() { _ = in.Close() }
}

// shown gives properties as systemctl shows them.
func shown(t *testing.T, unit string, names ...string) map[string]string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", unit, "-p", strings.Join(names, ",")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		m[name] = value
	}
	return m
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestScopeLife(t *testing.T) {
	tree, slice := systemdTree(t)
	name := slice + ":t:life"
	cmd, _ := process(t, "sleep 100")
	scope := Scope{PID: cmd.Process.Pid, Resources: everyday(), Properties: []string{"TimeoutStopSec=7", "Description='of a test'"}}
	if err := tree.StartScope(t.Context(), name, scope); err != nil {
		t.Fatal(err)
	}
	if pids, err := tree.Procs(name); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("processes %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	path, _ := locate(name)
	for controller, in := range memberships(string(text)) {
		if in != path && controller != "" {
			t.Errorf("it is not in its %s group: %s", controller, in)
		}
	}
	limit := "MemoryMax"
	if !tree.pure {
		limit = "MemoryLimit"
	}
	want := map[string]string{
		"Slice": slice, "Delegate": "yes", "CollectMode": "inactive-or-failed", "TimeoutStopUSec": "7s", "Description": "of a test",
		"TasksMax": "100", "CPUQuotaPerSecUSec": "500ms", limit: "67108864", "ActiveState": "active",
	}
	var names []string
	for n := range want {
		names = append(names, n)
	}
	if d := cmp.Diff(want, shown(t, "t-life.scope", names...)); d != "" {
		t.Error(d)
	}
	limits, err := tree.Read(name)
	if err != nil || *limits.Memory.Limit != 64<<20 || *limits.CPU.Quota != 50000 || *limits.Pids.Limit != 100 {
		t.Errorf("limits %+v, %v", limits, err)
	}
	if err := tree.StartScope(t.Context(), name, scope); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second scope of the name: %v", err)
	}
	freezeAndThaw(t, tree, name)
	if stats, err := tree.Stats(name); err != nil || stats.Pids.Current == 0 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = cmd.Process.Signal(os.Interrupt)
	if err := tree.Kill(ctx, name); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := tree.Remove(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if s := shown(t, "t-life.scope", "LoadState"); s["LoadState"] != "not-found" || tree.Exists(name) {
		t.Errorf("it is still there: %v, %v", s, tree.Exists(name))
	}
}

func freezeAndThaw(t *testing.T, tree *Tree, name string) {
	t.Helper()
	if err := tree.Freeze(t.Context(), name); err != nil {
		t.Error(err)
	}
	if frozen, err := tree.Frozen(name); !frozen || err != nil {
		t.Errorf("frozen %v, %v", frozen, err)
	}
	if err := tree.Thaw(name); err != nil {
		t.Error(err)
	}
}

// What systemd would put into the files must be what we have put there: it does
// so at a daemon-reload, and whenever a property of the unit changes.
func TestLimitsOutliveADaemonReload(t *testing.T) {
	tree, slice := systemdTree(t)
	name := slice + ":t:reload"
	dir := t.TempDir()
	cmd, run := process(t, "while ! [ -e "+dir+"/go ]; do sleep 0.01; done; echo >/dev/null && echo null >>"+dir+"/out; (: </dev/kmsg) && echo kmsg >>"+dir+"/out; echo end >>"+dir+"/out; sleep 100")
	resources := everyday()
	resources.CPU.Cpus = "0"
	if err := tree.StartScope(t.Context(), name, Scope{PID: cmd.Process.Pid, Resources: resources}); err != nil {
		t.Fatal(err)
	}
	run()
	update := &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(30000))}, Memory: &specs.LinuxMemory{Limit: new(int64(48 << 20)), Swap: new(int64(48 << 20))}, Pids: &specs.LinuxPids{Limit: new(int64(77))}}
	if err := tree.Update(name, update); err != nil {
		t.Fatal(err)
	}
	before, err := tree.Read(name)
	if err != nil || *before.CPU.Quota != 30000 || *before.Memory.Limit != 48<<20 || *before.Pids.Limit != 77 {
		t.Fatalf("limits %+v, %v", before, err)
	}
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The slice's other units make systemd look at all of them again.
	other, _ := process(t, "sleep 100")
	if err := tree.StartScope(t.Context(), slice+":t:other", Scope{PID: other.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	after, err := tree.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("after daemon-reload: %s", d)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out := ""
	eventually(t, "the process has tried its devices", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "out"))
		out = string(b)
		return strings.Contains(out, "end")
	})
	if out != "null\nend\n" {
		t.Errorf("devices that it could open: %q", out)
	}
}

// An update whose last file refuses leaves neither files nor properties changed.
func TestUnitUpdateIsAllOrNothing(t *testing.T) {
	tree, slice := systemdTree(t)
	if !tree.pure {
		t.Skip("needs cgroup v2 for a unified file that refuses: the test node has it")
	}
	name := slice + ":t:update"
	cmd, _ := process(t, "sleep 100")
	if err := tree.StartScope(t.Context(), name, Scope{PID: cmd.Process.Pid, Resources: everyday()}); err != nil {
		t.Fatal(err)
	}
	before, err := tree.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	properties := []string{"MemoryMax", "CPUWeight", "TasksMax", "CPUQuotaPerSecUSec"}
	known := shown(t, "t-update.scope", properties...)
	bad := &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Shares: new(uint64(2048)), Quota: new(int64(70000))}, Memory: &specs.LinuxMemory{Limit: new(int64(80 << 20)), Swap: new(int64(80 << 20))},
		Pids: &specs.LinuxPids{Limit: new(int64(50))}, Unified: map[string]string{"memory.oom.group": "nonsense"},
	}
	var refused *WriteError
	if err := tree.Update(name, bad); !errors.As(err, &refused) {
		t.Errorf("%v; want the file that refused", err)
	}
	after, err := tree.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("files: %s", d)
	}
	if d := cmp.Diff(known, shown(t, "t-update.scope", properties...)); d != "" {
		t.Errorf("properties: %s", d)
	}
}

// systemd removes a scope when its last process ends: that is no error later, and
// on v2 the kills are known all the same.
func TestScopeThatHasEnded(t *testing.T) {
	tree, slice := systemdTree(t)
	if h := tree.find("memory"); h == nil || !h.v2 {
		t.Skip("needs memory on cgroup v2: v1 keeps no count of a group that is gone")
	}
	limits := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(16 << 20)), Swap: new(int64(16 << 20))}}
	for _, tt := range []struct {
		name, script string
		kills        uint64
	}{
		{"killed for memory", "exec tail /dev/zero", 1},
		{"of itself", "exit 3", 0},
		{"killed for memory again", "exec tail /dev/zero", 1},
		{"of itself again", "exit 3", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := slice + ":t:end"
			cmd, run := process(t, tt.script)
			if err := tree.StartScope(t.Context(), name, Scope{PID: cmd.Process.Pid, Resources: limits}); err != nil {
				t.Fatal(err)
			}
			run()
			_ = cmd.Wait()
			eventually(t, "systemd has removed the scope", func() bool { return !tree.Exists(name) })
			if n := tree.OOMKills(name); n != tt.kills {
				t.Errorf("%d kills, want %d", n, tt.kills)
			}
			if err := tree.Remove(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSliceOfAPod(t *testing.T) {
	tree, slice := systemdTree(t)
	pod := strings.TrimSuffix(slice, ".slice") + "-podx.slice"
	for range 2 {
		if err := tree.Create(t.Context(), pod, everyday()); err != nil {
			t.Fatal(err)
		}
	}
	limits, err := tree.Read(pod)
	if err != nil || *limits.Memory.Limit != 64<<20 || *limits.CPU.Quota != 50000 {
		t.Errorf("limits %+v, %v", limits, err)
	}
	if err := tree.Update(pod, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(128 << 20)), Swap: new(int64(128 << 20))}}); err != nil {
		t.Error(err)
	}
	cmd, _ := process(t, "sleep 100")
	name := pod + ":t:inpod"
	if err := tree.StartScope(t.Context(), name, Scope{PID: cmd.Process.Pid, Resources: everyday()}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tree.Kill(t.Context(), pod), tree.Remove(t.Context(), name), tree.Remove(t.Context(), pod)); err != nil {
		t.Error(err)
	}
	if tree.Exists(pod) || !tree.Exists(slice) {
		t.Errorf("the pod's slice is there: %v; its parent, which was there before: %v", tree.Exists(pod), tree.Exists(slice))
	}
}

// Slices that systemd starts above a unit of ours go with the last one.
func TestSlicesAboveGoWithTheLast(t *testing.T) {
	tree, slice := systemdTree(t)
	root := strings.TrimSuffix(slice, ".slice") + "b"
	first, second := root+"-x-pod1.slice", root+"-x-pod2.slice"
	if err := errors.Join(tree.Create(t.Context(), first, nil), tree.Create(t.Context(), second, nil)); err != nil {
		t.Fatal(err)
	}
	if err := tree.Remove(t.Context(), first); err != nil || !tree.Exists(second) || !tree.Exists(root+".slice") {
		t.Errorf("%v; the other is there: %v, the root: %v", err, tree.Exists(second), tree.Exists(root+".slice"))
	}
	scope := root + "-x-pod3.slice:t:last"
	cmd, _ := process(t, "sleep 100")
	if err := tree.StartScope(t.Context(), scope, Scope{PID: cmd.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	if err := tree.Remove(t.Context(), second); err != nil {
		t.Error(err)
	}
	if err := errors.Join(tree.Kill(t.Context(), scope), tree.Remove(t.Context(), scope)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{root + "-x.slice", root + ".slice"} {
		if s := shown(t, name, "ActiveState"); s["ActiveState"] != "inactive" || tree.Exists(name) {
			t.Errorf("%s: %v, %v", name, s, tree.Exists(name))
		}
	}
}

// What systemd refuses is said with its words, and nothing is left of it.
func TestScopeThatSystemdRefuses(t *testing.T) {
	tree, slice := systemdTree(t)
	name := slice + ":t:refused"
	cmd, _ := process(t, "sleep 100")
	ended, _ := process(t, "exit 0")
	_ = ended.Process.Kill()
	_ = ended.Wait()
	tests := []struct {
		name, says string
		scope      Scope
	}{
		{"no such property", "Nonsense", Scope{PID: cmd.Process.Pid, Properties: []string{"Nonsense=true"}}},
		{"not a value", "GVariant", Scope{PID: cmd.Process.Pid, Properties: []string{"CollectMode=x"}}},
		{"no such process", "start t-refused.scope: ", Scope{PID: ended.Process.Pid}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tree.StartScope(t.Context(), name, tt.scope); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v; want %q", err, tt.says)
			}
			if err := tree.Remove(t.Context(), name); err != nil || tree.Exists(name) {
				t.Errorf("remove: %v", err)
			}
		})
	}
	if err := tree.StartScope(t.Context(), name, Scope{PID: cmd.Process.Pid}); err != nil {
		t.Errorf("the same name afterwards: %v", err)
	}
	if err := errors.Join(tree.Kill(t.Context(), name), tree.Remove(t.Context(), name)); err != nil {
		t.Error(err)
	}
}

// Without systemd a unit is an error that says so, and its removal none.
func TestNoSystemd(t *testing.T) {
	tree, err := New(Config{Layout: testLayout("v2")})
	if err != nil {
		t.Fatal(err)
	}
	tree.bus.socket = filepath.Join(t.TempDir(), "private")
	if err := tree.StartScope(t.Context(), "a.slice:b:c", Scope{PID: os.Getpid()}); !errors.Is(err, ErrNoSystemd) {
		t.Errorf("start: %v", err)
	}
	if err := tree.stopUnit(t.Context(), "a.slice:b:c"); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestChooseDriver(t *testing.T) {
	layout := testLayout("v1")
	if driver, why, err := ChooseDriver(t.Context(), DriverAuto, layout); driver != host.DriverCgroupfs || why == "" || err != nil {
		t.Errorf("auto on v1: %q, %q, %v", driver, why, err)
	}
	if driver, _, err := ChooseDriver(t.Context(), host.DriverCgroupfs, testLayout("v2")); driver != host.DriverCgroupfs || err != nil {
		t.Errorf("asked for: %q, %v", driver, err)
	}
	if _, _, err := ChooseDriver(t.Context(), "other", layout); err == nil {
		t.Error("a driver that is none is taken")
	}
	version, there := systemdAnswers(t.Context(), systemdSocket)
	want := host.DriverCgroupfs
	if there == nil && version > 0 {
		want = host.DriverSystemd
	}
	if driver, why, err := ChooseDriver(t.Context(), DriverAuto, testLayout("v2")); driver != want || err != nil {
		t.Errorf("auto on v2: %q because %q, %v; want %q", driver, why, err, want)
	}
	if _, _, err := ChooseDriver(t.Context(), host.DriverSystemd, layout); (err == nil) != (there == nil) {
		t.Errorf("systemd asked for: %v; it answers: %v", err, there)
	}
}
