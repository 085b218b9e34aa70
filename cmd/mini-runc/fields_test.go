package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The fields of config.json that the kernel tells of in /proc and by calls: what a process has is asked for from
// outside. docs/oci.md says which test is whose.

// procFile reads a file of a process.
func procFile(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	must(t, err)
	return string(text)
}

// namespace is the identity of a process's namespace.
func namespace(t *testing.T, pid int, name string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	must(t, err)
	return link
}

// TestNamespacesByPath: a container that joins all of another's namespaces, the mount namespace and its offsets of time
// too, is in them.
func TestNamespacesByPath(t *testing.T) {
	first := running(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}}
		s.Hostname, s.Domainname = "first", "one"
	})
	pid := first.pid("x")
	// A mount namespace in which nobody lives: the container's root replaces its root.
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	must(t, holder.Start())
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()

	second := newBundle(t, "exec busybox sleep 1000")
	second.spec.Hostname = ""
	second.spec.Linux.Namespaces = nil
	files := map[specs.LinuxNamespaceType]string{
		specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
		specs.CgroupNamespace: "cgroup", specs.TimeNamespace: "time",
	}
	for typ, file := range files {
		second.spec.Linux.Namespaces = append(second.spec.Linux.Namespaces, specs.LinuxNamespace{Type: typ, Path: fmt.Sprintf("/proc/%d/ns/%s", pid, file)})
	}
	second.spec.Linux.Namespaces = append(second.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.MountNamespace, Path: fmt.Sprintf("/proc/%d/ns/mnt", holder.Process.Pid)})
	second.spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4096"}
	second.write()
	second.ok("run", "-d", "y")
	mine := second.pid("y")
	for _, file := range files {
		if a, b := namespace(t, pid, file), namespace(t, mine, file); a != b {
			t.Errorf("%s: the first is in %s, the second in %s", file, a, b)
		}
	}
	if a, b := namespace(t, holder.Process.Pid, "mnt"), namespace(t, mine, "mnt"); a != b || b == namespace(t, os.Getpid(), "mnt") {
		t.Errorf("mount namespace %s, want %s", b, a)
	}
	want(t, second.ok("exec", "y", "sh", "-c", "busybox hostname; busybox cat /proc/sys/kernel/domainname /proc/sys/kernel/msgmax; busybox ls /"), "first\none\n4096\n"+
		"bin\ndev\netc\nproc\nrec\nsys\ntmp\n")
	up, _, _ := strings.Cut(second.ok("exec", "y", "busybox", "cat", "/proc/uptime"), ".")
	if n, _ := strconv.Atoi(up); n < 1000000 {
		t.Errorf("up for %s seconds: the offset is not the first one's", up)
	}
	second.ok("delete", "-f", "y")
}

// TestUserNamespaceByPath: the mappings are the other's.
func TestUserNamespaceByPath(t *testing.T) {
	first := running(t, withUserNamespace)
	pid := first.pid("x")
	second := newBundle(t, "exec busybox sleep 1000")
	withUserNamespace(second.spec)
	for i, n := range second.spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace || n.Type == specs.IPCNamespace {
			second.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", pid, n.Type)
		}
	}
	second.write()
	second.ok("run", "-d", "y")
	mine := second.pid("y")
	for _, file := range []string{"user", "ipc"} {
		if a, b := namespace(t, pid, file), namespace(t, mine, file); a != b {
			t.Errorf("%s: the first is in %s, the second in %s", file, a, b)
		}
	}
	if namespace(t, pid, "pid") == namespace(t, mine, "pid") {
		t.Error("the second is in the first's PID namespace, which was not asked for")
	}
	second.ok("delete", "-f", "y")
}

// TestOwnNamespaces: what a start changes in a namespace must not be changed in the runtime's own.
func TestOwnNamespaces(t *testing.T) {
	b := newBundle(t, "true")
	root, err := os.Stat("/")
	must(t, err)
	for i, n := range b.spec.Linux.Namespaces {
		if n.Type == specs.MountNamespace {
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/mnt", os.Getpid())
			b.write()
			b.fails("it is the runtime's own mnt namespace", "run", "x")
			b.spec.Linux.Namespaces[i].Path = ""
		}
		if n.Type == specs.NetworkNamespace {
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/net", os.Getpid())
			b.write()
			b.ok("run", "x") // nothing is set in it
			b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			b.write()
			b.fails("it is the runtime's own net namespace", "run", "x")
			b.spec.Linux.Sysctl, b.spec.Linux.Namespaces[i].Path = nil, ""
		}
	}
	if again, err := os.Stat("/"); err != nil || !os.SameFile(root, again) {
		t.Errorf("our root has changed: %v", err)
	}
	b.nothingLeft()
}

// TestTimeOffsets of both clocks, as the kernel keeps them.
func TestTimeOffsets(t *testing.T) {
	out := inside(t, "cat /proc/self/timens_offsets", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 5, Nanosecs: 7}, "boottime": {Secs: 1000000}}
	})
	want(t, strings.Join(strings.Fields(out), " "), "monotonic 5 7 boottime 1000000 0")
}

// TestPersonality: a 32-bit machine, for the container and for an exec.
func TestPersonality(t *testing.T) {
	b := running(t, func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} })
	want(t, procFile(t, b.pid("x"), "personality"), "00000008\n")
	if out := b.ok("exec", "x", "busybox", "uname", "-m"); !regexp.MustCompile(`^(i686|armv8l)\n$`).MatchString(out) {
		t.Errorf("the machine of an exec is %q", out)
	}
}

// ioPriority asks the kernel (ioprio_get(2)).
func ioPriority(t *testing.T, pid int) string {
	t.Helper()
	v, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return fmt.Sprintf("class %d priority %d", v>>13, v&0x1fff)
}

// TestScheduling: policy, nice value and I/O priority of the container's process, and of an exec that is described.
func TestScheduling(t *testing.T) {
	b := running(t, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	})
	check := func(pid int, policy uint32, nice int32, io string) {
		t.Helper()
		attr, err := unix.SchedGetAttr(pid, 0)
		must(t, err)
		if attr.Policy != policy || attr.Nice != nice {
			t.Errorf("policy %d, nice %d; want %d, %d", attr.Policy, attr.Nice, policy, nice)
		}
		want(t, ioPriority(t, pid), io)
	}
	check(b.pid("x"), unix.SCHED_BATCH, 7, "class 2 priority 6")
	p := *b.spec.Process
	p.Args = []string{"busybox", "sleep", "500"}
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	check(b.execDetached(p), unix.SCHED_IDLE, 0, "class 3 priority 0")
}

// execDetached runs a described process and gives its pid.
func (b *bundleDir) execDetached(p specs.Process) int {
	b.t.Helper()
	text, err := json.Marshal(p)
	must(b.t, err)
	must(b.t, os.WriteFile(filepath.Join(b.dir, "process.json"), text, 0o600))
	b.ok("exec", "-d", "--pid-file", "pid", "--process", "process.json", "x")
	text, err = os.ReadFile(filepath.Join(b.dir, "pid"))
	must(b.t, err)
	pid, err := strconv.Atoi(string(text))
	must(b.t, err)
	return pid
}

// TestRealtime: SCHED_FIFO, with the share of real time that its cgroup needs where the kernel shares it out.
func TestRealtime(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.spec.Linux.CgroupsPath = ours + "-realtime" // of the highest level: no parent has given all of its time away
	b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 3, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"); err == nil {
		runtime, period := int64(10000), uint64(500000)
		b.spec.Linux.Resources.CPU = &specs.LinuxCPU{RealtimeRuntime: &runtime, RealtimePeriod: &period}
	}
	b.write()
	b.ok("run", "-d", "x")
	attr, err := unix.SchedGetAttr(b.pid("x"), 0)
	must(t, err)
	if attr.Policy != unix.SCHED_FIFO || attr.Priority != 3 || attr.Flags&1 == 0 {
		t.Errorf("%+v", attr)
	}
	b.ok("delete", "-f", "x")
}

// TestDeadline: the three times of SCHED_DEADLINE.
func TestDeadline(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.spec.Process.Scheduler = &specs.Scheduler{
		Policy: specs.SchedDeadline, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}, Runtime: 10e6, Deadline: 50e6, Period: 100e6,
	}
	b.write()
	b.ok("run", "-d", "x")
	attr, err := unix.SchedGetAttr(b.pid("x"), 0)
	must(t, err)
	if attr.Policy != unix.SCHED_DEADLINE || attr.Runtime != 10e6 || attr.Deadline != 50e6 || attr.Period != 100e6 {
		t.Errorf("%+v", attr)
	}
	b.ok("delete", "-f", "x")
}

// TestExecCPUAffinity: an exec stays on the processors it is given, whatever the container's cpuset allows it; the
// container's own process is not concerned.
func TestExecCPUAffinity(t *testing.T) {
	b := running(t, func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"} })
	allowed := regexp.MustCompile(`Cpus_allowed_list:\t(.*)\n`)
	of := func(pid int) string { return allowed.FindStringSubmatch(procFile(t, pid, "status"))[1] }
	all := of(os.Getpid())
	if !strings.Contains(all, "1") {
		t.Skip("needs a second processor")
	}
	want(t, of(b.pid("x")), all)
	want(t, b.ok("exec", "x", "grep", "Cpus_allowed_list", "/proc/self/status"), "Cpus_allowed_list:\t1\n")
	p := *b.spec.Process
	p.Args, p.ExecCPUAffinity = []string{"busybox", "sleep", "500"}, &specs.CPUAffinity{Final: "0"}
	want(t, of(b.execDetached(p)), "0")
	p.ExecCPUAffinity = &specs.CPUAffinity{Final: "8000"}
	text, err := json.Marshal(p)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, "process.json"), text, 0o600))
	b.fails("cpu_affinity 8000: invalid argument", "exec", "--process", "process.json", "x")
}

// TestMemoryPolicy: the kernel shows it for each mapping, of the container and of an exec.
func TestMemoryPolicy(t *testing.T) {
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		t.Skip("the kernel has no NUMA")
	}
	for _, tc := range []struct {
		name   string
		policy specs.LinuxMemoryPolicy
		want   string
	}{
		{"bind", specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}, "bind:0"},
		{"interleave", specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}, "interleave=static:0"},
		{"preferred", specs.LinuxMemoryPolicy{Mode: specs.MpolPreferred, Nodes: "0"}, "prefer:0"},
		{"local", specs.LinuxMemoryPolicy{Mode: specs.MpolLocal}, "local"},
		{"default", specs.LinuxMemoryPolicy{Mode: specs.MpolDefault}, "default"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := running(t, func(s *specs.Spec) { s.Linux.MemoryPolicy = &tc.policy })
			for _, pid := range []int{b.pid("x"), b.execDetached(specs.Process{Args: []string{"/bin/busybox", "sleep", "500"}, Cwd: "/"})} {
				for line := range strings.Lines(procFile(t, pid, "numa_maps")) {
					if got := strings.Fields(line)[1]; got != tc.want {
						t.Errorf("process %d: %s, want %s", pid, got, tc.want)
					}
				}
			}
		})
	}
	b := newBundle(t, "true")
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "900"}
	b.write()
	b.fails("memory_policy 900: invalid argument", "run", "x")
	b.nothingLeft()
}

// TestResctrlMissing: the error names what the machine lacks.
func TestResctrlMissing(t *testing.T) {
	if text, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(text), " - resctrl ") {
		t.Skip("this machine has a resctrl file system")
	}
	b := newBundle(t, "true")
	b.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "x"}
	b.write()
	b.fails("linux.intelRdt: this machine has no resctrl file system mounted", "run", "x")
	b.nothingLeft()
}
