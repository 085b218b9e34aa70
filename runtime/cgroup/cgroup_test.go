package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/test/testbed"
)

// realTree returns the tree of this machine and a path of our own in it, whose
// cgroups are removed afterwards; a test that leaves some fails.
func realTree(t testing.TB) (*Tree, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make cgroups")
	}
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := New(Config{Layout: Layout(facts.Cgroup)})
	if err != nil {
		t.Fatal(err)
	}
	root := fmt.Sprintf("/cri-mini-test-%d", os.Getpid())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testbed.Limit(5*time.Second))
		defer cancel()
		if err := errors.Join(tree.Kill(ctx, root), tree.Remove(ctx, root)); err != nil || tree.Exists(root) {
			t.Errorf("clean up: %v", err)
		}
	})
	return tree, root
}

// everyday is what a container of a pod with limits asks for, default device
// rules included.
func everyday() *specs.LinuxResources {
	r := &specs.LinuxResources{
		CPU:     &specs.LinuxCPU{Shares: new(uint64(512)), Quota: new(int64(50000)), Period: new(uint64(100000))},
		Memory:  &specs.LinuxMemory{Limit: new(int64(64 << 20)), Swap: new(int64(64 << 20))},
		Pids:    &specs.LinuxPids{Limit: new(int64(100))},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}},
	}
	allow := func(kind string, major, minor int64, access string) {
		r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access})
	}
	allow("c", -1, -1, "m")
	allow("b", -1, -1, "m")
	for _, n := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, -1}} {
		allow("c", n[0], n[1], "rwm")
	}
	return r
}

// start runs a command inside the cgroup.
func start(t testing.TB, tree *Tree, path string, args ...string) *exec.Cmd {
	t.Helper()
	var join strings.Builder
	for _, f := range tree.JoinFiles(path) {
		fmt.Fprintf(&join, "echo 0 > %s\n", f.Path)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", join.String() + `exec "$@"`, "sh"}, args...)...)
	cmd.Stderr = os.Stderr
	dir, err := tree.CloneDir(path)
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dir != nil {
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); stdout.Close() })
	return cmd
}

// running starts a command that stays, and waits until the shell that joined the
// cgroup has become it.
func running(t testing.TB, tree *Tree, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := start(t, tree, path, args...)
	deadline := time.Now().Add(testbed.Limit(5 * time.Second))
	for {
		argv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if string(argv) == strings.Join(args, "\x00")+"\x00" {
			return cmd
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q is still %q", args, argv)
		}
		time.Sleep(time.Millisecond)
	}
}

// settled waits until the cgroup has this many processes.
func settled(t testing.TB, tree *Tree, path string, count int) []int {
	t.Helper()
	deadline := time.Now().Add(testbed.Limit(5 * time.Second))
	for {
		pids, err := tree.Procs(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == count {
			return pids
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has processes %v, want %d", path, pids, count)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestCreateReadRemove(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/burstable/pod1/ctr"
	for range 2 { // it may be repeated
		if err := tree.Create(t.Context(), path, everyday()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := tree.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	cpus, mems := got.CPU.Cpus, got.CPU.Mems
	if !tree.pure && (cpus == "" || mems == "") {
		t.Error("the cpuset was not filled from the parent")
	}
	want := everyday()
	want.Devices = nil
	want.CPU.Cpus, want.CPU.Mems = cpus, mems
	if tree.pure {
		want.CPU.Shares = got.CPU.Shares
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if h := tree.find("devices"); h != nil {
		list, err := readFile(h.dir(path), "devices.list")
		if err != nil || strings.Contains(list, "a *:*") || !strings.Contains(list, "c 1:3 rwm") {
			t.Errorf("devices.list: %v\n%s", err, list)
		}
	}
	if err := tree.Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if tree.Exists(root) {
		t.Error("parents that we made were left behind")
	}
	if err := tree.Remove(t.Context(), path); err != nil {
		t.Errorf("remove an absent cgroup: %v", err)
	}
	if _, err := tree.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read an absent cgroup: %v", err)
	}
}

// Parents that somebody else made stay, though they are empty.
func TestRemoveLeavesForeignParents(t *testing.T) {
	tree, root := realTree(t)
	parent := root + "/pod1"
	for _, h := range tree.list {
		for _, dir := range []string{h.dir(root), h.dir(parent)} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Both parents' cpusets are empty, as mkdir leaves them.
	path := parent + "/made/ctr"
	if err := tree.Create(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	if err := tree.Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if tree.Exists(parent + "/made") {
		t.Error("our own parent is still there")
	}
	for _, h := range tree.list {
		if !exists(h.dir(parent)) {
			t.Errorf("%s was removed", h.dir(parent))
		}
	}
}

// Siblings come and go at the same time below a parent that both may make and
// remove.
func TestSiblingsAtTheSameTime(t *testing.T) {
	tree, root := realTree(t)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for round := range 10 {
				path := fmt.Sprintf("%s/besteffort/pod/ctr-%d-%d", root, worker, round)
				if err := tree.Create(t.Context(), path, everyday()); err != nil {
					t.Error(err)
				}
				if err := tree.Remove(t.Context(), path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if tree.Exists(root) {
		t.Error("parents were left behind")
	}
}

func TestUpdateOrdersMemoryAndSwap(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, everyday()); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{256 << 20, 32 << 20, 64 << 20, -1, 16 << 20} {
		err := tree.Update(path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}})
		if err != nil {
			t.Fatalf("to %d: %v", limit, err)
		}
		got, err := tree.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if limit == -1 && got.Memory.Limit == nil && got.Memory.Swap == nil {
			continue
		}
		if got.Memory.Limit == nil || *got.Memory.Limit != limit || got.Memory.Swap == nil || *got.Memory.Swap != limit {
			t.Errorf("to %d: %+v", limit, got.Memory)
		}
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, everyday()); err != nil {
		t.Fatal(err)
	}
	before, err := tree.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	err = tree.Update(path, &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: new(uint64(99)), Quota: new(int64(20000)), Period: new(uint64(50000))},
		Memory: &specs.LinuxMemory{Limit: new(int64(32 << 20)), Swap: new(int64(48 << 20))},
		// The last controller of each layout in the order of the hierarchies.
		BlockIO: nil,
		Pids:    &specs.LinuxPids{Limit: new(int64(1 << 60))},
	})
	var refused *WriteError
	if !errors.As(err, &refused) || !strings.HasSuffix(refused.Path, "/pids.max") || refused.Value != fmt.Sprint(1<<60) {
		t.Fatalf("error %v does not name the file and the value", err)
	}
	after, err := tree.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("a refused update left: %s", diff)
	}
	if err := tree.Update(root+"/absent", &specs.LinuxResources{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("update of an absent cgroup: %v", err)
	}
}

func TestUpdateErrorSaysWhy(t *testing.T) {
	tree, root := realTree(t)
	if tree.pure {
		t.Skip("v2 keeps memory and swap apart")
	}
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, everyday()); err != nil {
		t.Fatal(err)
	}
	err := tree.Update(path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 30))}})
	if err == nil || !strings.Contains(err.Error(), "memory.memsw.limit_in_bytes = 67108864") {
		t.Errorf("memory above memory and swap: %v", err)
	}
	err = tree.Update(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}})
	if err == nil || !strings.Contains(err.Error(), "parent's, which is cpuset.cpus = ") {
		t.Errorf("CPU that is not there: %v", err)
	}
}

func TestDevicesAreEnforced(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, everyday()); err != nil {
		t.Fatal(err)
	}
	run := func(path, device string) error {
		cmd := start(t, tree, path, "dd", "if="+device, "of=/dev/null", "count=0", "status=none")
		cmd.Stderr = nil
		return cmd.Wait()
	}
	if err := run(path, "/dev/zero"); err != nil {
		t.Errorf("/dev/zero is allowed: %v", err)
	}
	if err := run(path, "/dev/kmsg"); err == nil {
		t.Error("/dev/kmsg was read, though it is not in the list")
	}
	// Allow all below a restricted parent is no error, and no more than that.
	nested := path + "/nested"
	all := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	if err := tree.Create(t.Context(), nested, all); err != nil {
		t.Fatal(err)
	}
	if err := run(nested, "/dev/kmsg"); err == nil {
		t.Error("/dev/kmsg was read in a nested cgroup")
	}
	one := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{}, {Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(11)), Access: "r"}}}
	if err := tree.Create(t.Context(), path+"/other", one); err == nil && !tree.pure {
		t.Error("a device that the parent lacks was allowed without an error")
	}
	free := root + "/privileged"
	if err := tree.Create(t.Context(), free, all); err != nil {
		t.Fatal(err)
	}
	if err := run(free, "/dev/kmsg"); err != nil {
		t.Errorf("/dev/kmsg in a privileged cgroup: %v", err)
	}
}

func TestHugepageLimits(t *testing.T) {
	tree, root := realTree(t)
	if tree.find("hugetlb") == nil {
		t.Skip("this machine has no hugetlb controller")
	}
	path := root + "/pod/ctr"
	limits := []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}, {Pagesize: "3MB", Limit: 0}}
	if err := tree.Create(t.Context(), path, &specs.LinuxResources{HugepageLimits: limits}); err != nil {
		t.Fatal(err)
	}
	got, err := tree.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(limits[:1], got.HugepageLimits); diff != "" {
		t.Error(diff)
	}
	limits[1].Limit = 3 << 20
	err = tree.Create(t.Context(), root+"/pod/other", &specs.LinuxResources{HugepageLimits: limits})
	if err == nil || !strings.Contains(err.Error(), "hugetlb.3MB") {
		t.Errorf("a limit on pages that are not there: %v", err)
	}
}

func TestStatsAndOOMKills(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	r := everyday()
	r.Memory.Limit, r.Memory.Swap = new(int64(8<<20)), new(int64(8<<20))
	if err := tree.Create(t.Context(), path, r); err != nil {
		t.Fatal(err)
	}
	if n := tree.OOMKills(path); n != 0 {
		t.Fatalf("%d OOM kills before any", n)
	}
	running(t, tree, path, "sh", "-c", "while :; do :; done")
	var stats Stats
	for range 1000 { // CPU time is counted by the tick
		var err error
		if stats, err = tree.Stats(path); err != nil {
			t.Fatal(err)
		}
		if stats.CPU.UsageNS > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if stats.CPU.UsageNS == 0 || stats.Memory.Usage == 0 || stats.Memory.Limit != 8<<20 ||
		stats.Memory.Available == 0 || stats.Pids.Current != 1 || stats.Pids.Limit != 100 {
		t.Errorf("stats: %+v %+v %+v", stats.CPU, stats.Memory, stats.Pids)
	}
	hog := start(t, tree, path, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
	hog.Wait()
	if n := tree.OOMKills(path); n != 1 {
		t.Errorf("%d OOM kills after one", n)
	}
	if n := tree.OOMKills(root); n != 1 {
		t.Errorf("%d OOM kills seen from the parent", n)
	}
	if n := tree.OOMKills(root + "/absent"); n != 0 {
		t.Errorf("%d OOM kills of an absent cgroup", n)
	}
	if _, err := tree.Stats(root + "/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stats of an absent cgroup: %v", err)
	}
}

func TestKillNested(t *testing.T) {
	tree, root := realTree(t)
	if tree.pure {
		t.Skip("v2 has no processes in inner cgroups")
	}
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path+"/nested", nil); err != nil {
		t.Fatal(err)
	}
	a, b := running(t, tree, path, "sleep", "100"), running(t, tree, path+"/nested", "sleep", "100")
	settled(t, tree, path, 2)
	if err := tree.Kill(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{a, b} {
		if cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("ended by %v", cmd.ProcessState)
		}
	}
	if err := tree.Kill(t.Context(), root+"/absent"); err != nil {
		t.Errorf("kill an absent cgroup: %v", err)
	}
}

func TestFreezeThawAndKillFrozen(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	cmd := running(t, tree, path, "sleep", "100")
	settled(t, tree, path, 1)
	isFrozen := func(want bool) {
		t.Helper()
		if frozen, err := tree.Frozen(path); frozen != want || err != nil {
			t.Fatalf("frozen: %v, %v", frozen, err)
		}
	}
	for range 2 {
		if err := tree.Freeze(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		isFrozen(true)
	}
	for range 2 {
		if err := tree.Thaw(path); err != nil {
			t.Fatal(err)
		}
		isFrozen(false)
	}
	if err := tree.Freeze(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if err := tree.Kill(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := tree.Freeze(t.Context(), root+"/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("freeze an absent cgroup: %v", err)
	}
}

// forker starts a tree of processes that never stops forking.
func forker(t *testing.T, tree *Tree, path string) {
	t.Helper()
	if err := tree.Create(t.Context(), path, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(200))}}); err != nil {
		t.Fatal(err)
	}
	start(t, tree, path, "sh", "-c", "exec 2>/dev/null; while :; do sh -c 'while :; do (sleep 5 &) ; done' & sleep 0.01; done")
	for limit := time.Now().Add(testbed.Limit(10 * time.Second)); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		if pids, _ := tree.Procs(path); len(pids) > 50 {
			return
		}
	}
	t.Fatal("the forker does not fork")
}

func mustKill(t *testing.T, tree *Tree, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testbed.Limit(10*time.Second))
	defer cancel()
	begin := time.Now()
	if err := tree.Kill(ctx, path); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed in %v", time.Since(begin))
	settled(t, tree, path, 0)
}

func TestKillForker(t *testing.T) {
	tree, root := realTree(t)
	forker(t, tree, root+"/ctr")
	mustKill(t, tree, root+"/ctr")
}

// Without the v2 hierarchy the kill has only signals and the freezer.
func TestKillByV1MeansAlone(t *testing.T) {
	tree, root := realTree(t)
	if tree.pure {
		t.Skip("there is no v1 hierarchy")
	}
	layout := Layout{Mode: "v1", Mounts: map[string]string{}}
	for _, h := range tree.list {
		for _, c := range h.controllers {
			if !h.v2 {
				layout.Mounts[c] = h.mount
			}
		}
	}
	v1, err := New(Config{Layout: layout})
	if err != nil {
		t.Fatal(err)
	}
	forker(t, v1, root+"/ctr")
	mustKill(t, v1, root+"/ctr")
}

func TestKillNamesWhatIsStuck(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	running(t, tree, path, "sleep", "100")
	pids := settled(t, tree, path, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := tree.Kill(ctx, path)
	var stuck *StuckError
	if err == nil {
		t.Skip("it died faster than the context was looked at")
	}
	if !errors.As(err, &stuck) || stuck.Processes[0].PID != pids[0] || !strings.Contains(err.Error(), "(sleep) in state") {
		t.Errorf("error %v", err)
	}
}

func TestRemoveNamesWhoKeepsIt(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	running(t, tree, path, "sleep", "100")
	pids := settled(t, tree, path, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := tree.Remove(ctx, path)
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), fmt.Sprint(pids[0])) {
		t.Errorf("error %v does not name process %d", err, pids[0])
	}
}

func BenchmarkCreate(b *testing.B) { benchmarkLife(b, true) }
func BenchmarkRemove(b *testing.B) { benchmarkLife(b, false) }

func benchmarkLife(b *testing.B, create bool) {
	tree, root := realTree(b)
	path, resources := root+"/burstable/pod1/ctr", everyday()
	if err := tree.Create(b.Context(), filepath.Dir(path), nil); err != nil {
		b.Fatal(err)
	}
	step := func(timed bool, call func() error) {
		if timed {
			b.StartTimer()
		}
		err := call()
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	b.StopTimer()
	for i := 0; i < b.N; i++ {
		step(create, func() error { return tree.Create(context.Background(), path, resources) })
		step(!create, func() error { return tree.Remove(context.Background(), path) })
	}
}

func BenchmarkStats(b *testing.B) {
	tree, root := realTree(b)
	if err := tree.Create(b.Context(), root+"/ctr", everyday()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := tree.Stats(root + "/ctr"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWhatCannotBeIsGone: a path that the kernel takes for none can be killed and removed like any that is absent.
func TestWhatCannotBeIsGone(t *testing.T) {
	tree, root := realTree(t)
	for name, path := range map[string]string{
		"too long": root + strings.Repeat("/a", 2500), "a name too long": root + "/" + strings.Repeat("a", 5000), "below a file": "/cgroup.procs/a",
	} {
		if err := tree.Create(t.Context(), path, nil); err == nil {
			t.Errorf("%s: it can be made", name)
		}
		if err := tree.Kill(t.Context(), path); err != nil {
			t.Errorf("%s: %.200s", name, err)
		}
		if err := tree.Remove(t.Context(), path); err != nil {
			t.Errorf("%s: %.200s", name, err)
		}
		if n := tree.OOMKills(path); n != 0 {
			t.Errorf("%s: %d kills", name, n)
		}
	}
}
