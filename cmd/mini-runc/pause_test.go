package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/engine"
)

// taskState is the third field of /proc/PID/stat.
func taskState(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

func (b *bundleDir) pid(id string) int {
	b.t.Helper()
	var s engine.CommandState
	must(b.t, json.Unmarshal([]byte(b.ok("state", id)), &s))
	return s.PID
}

// cpuTime is what a process has used, in ticks.
func cpuTime(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	n, err := strconv.Atoi(strings.Fields(rest)[11])
	must(t, err)
	return n
}

// TestPause: a paused container says so everywhere, uses no CPU, takes no exec, and runs on after the resume.
func TestPause(t *testing.T) {
	b := newBundle(t, "while :; do :; done")
	b.write()
	b.ok("run", "-d", "x")
	pid := b.pid("x")
	b.fails("resume container x: container not paused: it is running", "resume", "x")
	b.ok("pause", "x")
	b.ok("pause", "x")
	want(t, b.status("x"), "paused")
	if l := b.ok("list"); !strings.Contains(l, " paused ") {
		t.Error(l)
	}
	used := cpuTime(t, pid)
	b.fails("cannot exec in a paused container (use --ignore-paused to override)", "exec", "x", "sh", "-c", "exit 0")
	b.fails("cannot delete container x that is not stopped: paused", "delete", "x")
	if now := cpuTime(t, pid); now != used {
		t.Errorf("paused, it used %d ticks of CPU", now-used)
	}
	b.ok("resume", "x")
	want(t, b.status("x"), "running")
	for deadline := time.Now().Add(patience); cpuTime(t, pid) == used; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not run on: state %s", taskState(t, pid))
		}
	}
	b.ok("exec", "x", "sh", "-c", "exit 0")
	b.ok("delete", "--force", "x")
}

// TestPausedIsKilled: the end of a paused container needs no resume.
func TestPausedIsKilled(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.write()
	b.ok("run", "-d", "x")
	b.ok("pause", "x")
	b.ok("kill", "x", "KILL")
	b.waitStatus("x", "stopped")
	b.fails("pause container x: container not running: it is stopped", "pause", "x")
	b.fails("resume container x: container not paused: it is stopped", "resume", "x")
	b.ok("delete", "x")
	b.ok("run", "-d", "x")
	b.ok("pause", "x")
	b.ok("delete", "--force", "x")
	b.fails("container does not exist", "pause", "x")
}

// TestExecIgnorePaused: the process waits for the resume.
func TestExecIgnorePaused(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	rec := b.record()
	b.write()
	b.ok("run", "-d", "x")
	b.ok("pause", "x")
	cmd := b.command("exec", "--ignore-paused", "x", "sh", "-c", "echo done > /rec/done")
	must(t, cmd.Start())
	frozen := "/sys/fs/cgroup/freezer" + b.spec.Linux.CgroupsPath
	if _, err := os.Stat(frozen); err != nil {
		frozen = "/sys/fs/cgroup" + b.spec.Linux.CgroupsPath
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(frozen + "/cgroup.procs")
		must(t, err)
		if strings.Count(string(text), "\n") == 2 {
			break // it has joined
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes: %q", text)
		}
	}
	if _, err := os.Stat(rec + "/done"); err == nil {
		t.Error("it ran in a paused container")
	}
	b.ok("resume", "x")
	must(t, cmd.Wait())
	waitText(t, rec+"/done", "done")
	b.ok("delete", "--force", "x")
}

func TestProcesses(t *testing.T) {
	b := newBundle(t, "busybox sleep 1001 & echo > /rec/ready; exec busybox sleep 1002")
	rec := b.record()
	b.write()
	b.ok("run", "-d", "x")
	waitText(t, rec+"/ready", "\n")
	var pids []int
	must(t, json.Unmarshal([]byte(b.ok("ps", "--format", "json", "x")), &pids))
	if len(pids) != 2 || pids[0] != b.pid("x") {
		t.Errorf("processes %v, init is %d", pids, b.pid("x"))
	}
	table := b.ok("ps", "x")
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "UID ") || !strings.Contains(table, "sleep 1001") {
		t.Error(table)
	}
	if table := b.ok("ps", "x", "-o", "pid,stat", "-e"); len(strings.Split(strings.TrimSpace(table), "\n")) != 3 {
		t.Error(table)
	}
	b.fails("no column PID", "ps", "x", "-o", "stat")
	t.Setenv("PATH", t.TempDir())
	b.fails("install procps, or use --format json", "ps", "x")
	b.fails(`invalid format option: "yaml"`, "ps", "-f", "yaml", "x")
	b.ok("kill", "x", "KILL")
	b.waitStatus("x", "stopped")
	want(t, b.ok("ps", "-f", "json", "x"), "null\n")
	b.ok("delete", "x")
}

// TestUpdate: options and a file change the cgroup; what they do not name stays; a value that the kernel refuses
// changes nothing.
func TestUpdate(t *testing.T) {
	b := running(t, func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(50))}
	})
	limit := func(v1, v2 string) string {
		t.Helper()
		for _, pattern := range []string{"/sys/fs/cgroup/" + v1, "/sys/fs/cgroup/" + v2} {
			dir, file, _ := strings.Cut(pattern, "@")
			if text, err := os.ReadFile(dir + b.spec.Linux.CgroupsPath + file); err == nil {
				return strings.TrimSpace(string(text))
			}
		}
		t.Fatalf("neither %s nor %s is there", v1, v2)
		return ""
	}
	memory := func() string { return limit("memory@/memory.limit_in_bytes", "@/memory.max") }
	pids := func() string { return limit("pids@/pids.max", "@/pids.max") }
	b.ok("update", "--memory", "0.125GiB", "x")
	want(t, memory(), strconv.Itoa(128<<20))
	want(t, pids(), "50")
	b.ok("update", "--pids-limit", "60", "--cpu-share", "512", "--cpu-quota", "50000", "--cpu-period", "100000", "x")
	want(t, memory(), strconv.Itoa(128<<20))
	want(t, pids(), "60")
	file := b.dir + "/limits.json"
	must(t, os.WriteFile(file, []byte(`{"memory": {"limit": 100663296}, "pids": {"limit": 70}}`), 0o600))
	b.ok("update", "-r", file, "--pids-limit", "80", "x")
	want(t, memory(), strconv.Itoa(96<<20))
	want(t, pids(), "70")
	cmd := b.command("update", "--resources", "-", "x")
	cmd.Stdin = strings.NewReader(`{"pids": {"limit": 90}}`)
	if r := b.call(cmd); r.code != 0 || r.err != "" {
		t.Error(r)
	}
	want(t, pids(), "90")
	b.fails("cpuset.cpus", "update", "--pids-limit", "99", "--cpuset-cpus", "4096", "x")
	want(t, pids(), "90")
	b.fails("want a size such as", "update", "--memory", "much", "x")
	b.fails("from 10 to 1000", "update", "--blkio-weight", "5", "x")
	b.fails("--resources: ", "update", "-r", "/nowhere", "x")
	b.fails("container does not exist", "update", "--memory", "64M", "y")
}

// TestUpdateEach: each option alone, as the kernel has it afterwards; where this machine has no such file the error says
// which one is missing.
func TestUpdateEach(t *testing.T) {
	b := running(t, func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: ptr(int64(20000)), Period: ptr(uint64(100000))}
	})
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	v2 := err == nil
	read := func(path string) (string, bool) {
		controller, file, _ := strings.Cut(path, "/")
		dir := "/sys/fs/cgroup/" + controller
		if v2 {
			dir, file = "/sys/fs/cgroup", path
		}
		text, err := os.ReadFile(dir + b.spec.Linux.CgroupsPath + "/" + file)
		return strings.TrimSpace(string(text)), err == nil
	}
	for _, tc := range []struct{ option, value, v1, want1, v2, want2 string }{
		{"cpu-quota", "30000", "cpu/cpu.cfs_quota_us", "30000", "cpu.max", "30000 100000"},
		{"cpu-period", "50000", "cpu/cpu.cfs_period_us", "50000", "cpu.max", "30000 50000"},
		{"cpu-burst", "10000", "cpu/cpu.cfs_burst_us", "10000", "cpu.max.burst", "10000"},
		{"cpu-share", "512", "cpu/cpu.shares", "512", "cpu.weight", ""},       // by a formula of its own
		{"cpu-rt-period", "500000", "cpu/cpu.rt_period_us", "500000", "", ""}, // v2 has no realtime limits
		{"cpu-rt-runtime", "0", "cpu/cpu.rt_runtime_us", "0", "", ""},
		{"cpu-idle", "1", "cpu/cpu.idle", "1", "cpu.idle", "1"},
		{"cpuset-cpus", "0", "cpuset/cpuset.cpus", "0", "cpuset.cpus", "0"},
		{"cpuset-mems", "0", "cpuset/cpuset.mems", "0", "cpuset.mems", "0"},
		{"memory", "80M", "memory/memory.limit_in_bytes", strconv.Itoa(80 << 20), "memory.max", strconv.Itoa(80 << 20)},
		{"memory-reservation", "33554432", "memory/memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"},
		{"memory-swap", "120M", "memory/memory.memsw.limit_in_bytes", strconv.Itoa(120 << 20), "memory.swap.max", strconv.Itoa(40 << 20)},
		{"pids-limit", "33", "pids/pids.max", "33", "pids.max", "33"},
		{"blkio-weight", "500", "blkio/blkio.bfq.weight", "500", "", ""}, // on v2 it is a hint, for whichever scheduler there is
	} {
		t.Run(tc.option, func(t *testing.T) {
			file, wanted := tc.v1, tc.want1
			if v2 {
				file, wanted = tc.v2, tc.want2
			}
			before, there := read(file)
			r := b.mini("update", "--"+tc.option, tc.value, "x")
			after, _ := read(file)
			switch {
			case file == "": // see above
			case !there:
				if r.code == 0 || !strings.Contains(r.err, filepath.Base(file)) && !strings.Contains(r.err, "weight") {
					t.Errorf("%s is not there, and update says %+v", file, r)
				}
			case r.code != 0 || r.err != "":
				t.Errorf("%+v", r)
			case wanted == "" && after == before, wanted != "" && after != wanted:
				t.Errorf("%s has %q, and had %q; want %q", file, after, before, wanted)
			}
		})
	}
	for _, option := range []string{"--kernel-memory", "--kernel-memory-tcp"} {
		if r := b.mini("update", option, "64M", "x"); r.code != 0 || !strings.Contains(r.err, "ignored") {
			t.Errorf("%s: %+v", option, r)
		}
	}
	if _, err := os.Stat("/sys/fs/resctrl/info"); err != nil {
		b.fails("Intel RDT/CAT: l3 cache schema is not enabled: resctrl is missing", "update", "--l3-cache-schema", "L3:0=f", "x")
		b.fails("Intel RDT/MBA: memory bandwidth schema is not enabled: resctrl is missing", "update", "--mem-bw-schema", "MB:0=20", "x")
	}
	b.ok("delete", "-f", "x")
}

// TestUpdateResctrl: the schemata go to the container's group. The directory stands for resctrl, which few machines have.
func TestUpdateResctrl(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	root := filepath.Join(b.dir, "resctrl")
	must(t, os.MkdirAll(filepath.Join(root, "info/L3"), 0o755))
	must(t, os.MkdirAll(filepath.Join(root, "gold"), 0o755))
	a := &app{root: filepath.Join(b.dir, "other"), log: &logger{}}
	must(t, os.MkdirAll(filepath.Join(a.root, "x"), 0o755))
	config := func(text string) { must(t, os.WriteFile(filepath.Join(a.root, "x/config.json"), []byte(text), 0o600)) }
	config(`{"linux": {}}`)
	refused := func(words string, l3, bandwidth string) {
		t.Helper()
		if err := a.updateResctrl(root, "x", l3, bandwidth); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v; want %q", err, words)
		}
	}
	refused("updating a non-existent Intel RDT configuration", "L3:0=f", "")
	refused("memory bandwidth schema is not enabled", "", "MB:0=20")
	config(`{"linux": {"intelRdt": {"closID": "gold"}}}`)
	must(t, os.WriteFile(filepath.Join(root, "gold/schemata"), nil, 0o644))
	must(t, a.updateResctrl(root, "x", "L3:0=f", ""))
	text, err := os.ReadFile(filepath.Join(root, "gold/schemata"))
	must(t, err)
	want(t, string(text), "L3:0=f\n")
}

func TestParseSize(t *testing.T) {
	for _, tc := range []struct {
		name string
		want int64
	}{{"-1", -1}, {"0", 0}, {"512", 512}, {"512b", 512}, {"1k", 1024}, {"10 MiB", 10 << 20}, {"1.5g", 3 << 29}, {"2TB", 2 << 40}} {
		if got, err := parseSize(tc.name); err != nil || got != tc.want {
			t.Errorf("%s: %d, %v; want %d", tc.name, got, err, tc.want)
		}
	}
	for _, bad := range []string{"", "k", "-2", "1kk", "1ki2", "x", "9e30"} {
		if got, err := parseSize(bad); err == nil {
			t.Errorf("%q is %d", bad, got)
		}
	}
}

// TestExecCgroup: the process begins in a group below the container's, and in no other.
func TestExecCgroup(t *testing.T) {
	b := running(t, nil)
	own := b.spec.Linux.CgroupsPath
	hierarchy := "/sys/fs/cgroup/pids"
	if _, err := os.Stat(hierarchy); err != nil {
		hierarchy = "/sys/fs/cgroup"
	}
	sub := hierarchy + own + "/sub"
	must(t, os.Mkdir(sub, 0o755))
	groups := func(option, group string) (line string) {
		t.Helper()
		for line := range strings.Lines(b.ok("exec", option, group, "x", "cat", "/proc/self/cgroup")) {
			_, rest, _ := strings.Cut(line, ":")
			if strings.HasPrefix(rest, "pids:") || strings.HasPrefix(rest, ":") && hierarchy == "/sys/fs/cgroup" {
				return strings.TrimSpace(rest[strings.Index(rest, ":")+1:])
			}
		}
		return ""
	}
	if got := groups("--cgroup", "pids:sub"); !strings.HasSuffix(got, own+"/sub") {
		t.Error(got)
	}
	if got := groups("--cgroup", "pids:../../sub"); !strings.HasSuffix(got, own+"/sub") {
		t.Errorf("it left the container's group for %s", got)
	}
	if got := groups("--cgroup", "/"); !strings.HasSuffix(got, own) {
		t.Error(got)
	}
	b.fails(own+"/absent", "exec", "--cgroup", "pids:absent", "x", "ls")
	b.fails("no controller before the colon", "exec", "--cgroup", ":sub", "x", "ls")
	b.fails("a second one for the same controller", "exec", "--cgroup", "pids:sub", "--cgroup", "cpu,pids:sub", "x", "ls")
}
