package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func withUserNamespace(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
	s.Linux.Resources = nil
}

// inside runs a script in a container of its own and gives what it prints.
func inside(t *testing.T, script string, change func(*specs.Spec)) string {
	t.Helper()
	b := newBundle(t, script)
	for _, name := range []string{"cat", "id", "ls", "grep", "stat", "touch", "cut", "sort", "hostname", "mkdir", "echo"} {
		must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin", name)))
	}
	if change != nil {
		change(b.spec)
	}
	b.write()
	out, err := os.Create(filepath.Join(b.dir, "output"))
	must(t, err)
	defer out.Close()
	cmd := b.command("run", "x")
	cmd.Stdout, cmd.Stderr = out, out
	_ = cmd.Run()
	text, err := os.ReadFile(out.Name())
	must(t, err)
	return string(text)
}

func TestIsolation(t *testing.T) {
	for _, tc := range []struct {
		name, script, out string
		change            func(*specs.Spec)
	}{
		{"root is read-only", "touch /x || touch /dev/x && ls /dev/x", "touch: /x: Read-only file system\n/dev/x\n", nil},
		{"root is writable", "touch /x && ls /x", "/x\n", func(s *specs.Spec) { s.Root.Readonly = false }},
		{"masked", "cat /proc/timer_list; ls /sys/firmware; touch /sys/firmware/x", "touch: /sys/firmware/x: Read-only file system\n", func(s *specs.Spec) {
			s.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/timer_list", "/sys/firmware"}
		}},
		{"read-only paths", "echo 1 > /proc/sys/kernel/pid_max", "sh: can't create /proc/sys/kernel/pid_max: Read-only file system\n", nil},
		{"capabilities", "grep Cap /proc/self/status | cut -f2", "0000000000000000\n0000000020000420\n0000000020000420\n0000000020000420\n0000000000000000\n", nil},
		{"ambient capabilities", "grep -E 'Cap(Eff|Amb)' /proc/self/status | cut -f2", "0000000000000020\n0000000000000020\n", func(s *specs.Spec) {
			kill := []string{"CAP_KILL"}
			s.Process.User.UID = 1000
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Inheritable: kill, Effective: kill, Ambient: kill}
		}},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", nil},
		{"rlimits", "ulimit -n; ulimit -c; ulimit -H -c", "512\n0\n4\n", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 512, Hard: 1000}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 2048}}
		}},
		{"user", "id; echo > /tmp/x; stat -c %a:%u:%g /tmp/x", "uid=1000 gid=7 groups=9,10\n640:1000:7\n", func(s *specs.Spec) {
			umask := uint32(0o027)
			s.Process.User = specs.User{UID: 1000, GID: 7, AdditionalGids: []uint32{9, 10}, Umask: &umask}
			s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp", Options: []string{"mode=1777"}})
		}},
		{"oom score", "cat /proc/self/oom_score_adj", "555\n", func(s *specs.Spec) { score := 555; s.Process.OOMScoreAdj = &score }},
		{"sysctl", "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward", "4096\n1\n", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"kernel.msgmax": "4096", "net.ipv4.ip_forward": "1"}
		}},
		{"domain name and host name", "hostname; cat /proc/sys/kernel/domainname", "h\nd\n", func(s *specs.Spec) { s.Hostname, s.Domainname = "h", "d" }},
		{"devices", "stat -c '%A %t:%T' /dev/x; echo > /dev/null; cat /dev/zero | echo read; cat /dev/x", "crw-r----- 1:b\nread\ncat: can't open '/dev/x': Operation not permitted\n", func(s *specs.Spec) {
			mode := os.FileMode(0o640)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 11, FileMode: &mode}}
		}},
		{"seccomp", "mkdir /tmp/x; echo $?", "mkdir: can't create directory '/tmp/x': Level 2 halted\n1\n", func(s *specs.Spec) {
			errno := uint(51) // EL2HLT: nobody else says that
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
		}},
		{"bind mount", "cat /rec/file; echo x > /rec/file", "there\nsh: can't create /rec/file: Read-only file system\n", nil},
		{"user namespace", "id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status | cut -f2; touch /tmp/x; stat -c %u /tmp/x /proc/1", "0\n         0     100000      65536\n0000000020000420\n0\n0\n", func(s *specs.Spec) {
			withUserNamespace(s)
			s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp"})
		}},
		{"host's network and host name", "hostname", "", func(s *specs.Spec) {
			s.Hostname = ""
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}
			s.Mounts = s.Mounts[:4] // an mqueue would need an IPC namespace, sysfs a network namespace
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "bind mount" {
				dir := t.TempDir()
				must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("there\n"), 0o644))
				tc.change = func(s *specs.Spec) {
					s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: []string{"rbind", "ro"}})
				}
			}
			if tc.name == "host's network and host name" {
				host, _ := os.Hostname()
				tc.out = host + "\n"
			}
			want(t, inside(t, tc.script, tc.change), tc.out)
		})
	}
}

// TestRecursiveAttributes: they hold for what is mounted below a source, and for nothing of the host's. A new file system
// is a tree of one mount.
func TestRecursiveAttributes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts: must be root")
	}
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	must(t, unix.Mount("tmpfs", sub, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(sub, 0)) }()
	script := "grep -E ' /(rec|rec/sub|tmp) ' /proc/self/mountinfo | cut -d' ' -f5,6; touch /rec/x /rec/sub/x /tmp/x"
	got := inside(t, script, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: []string{"rbind", "nodev", "rro", "rnosuid", "rnoatime"}},
			specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp", Options: []string{"rro", "nosuid", "rsuid"}})
	})
	want(t, got, "/rec ro,nosuid,nodev,noatime\n/rec/sub ro,nosuid,noatime\n/tmp ro,relatime\n"+
		"touch: /rec/x: Read-only file system\ntouch: /rec/sub/x: Read-only file system\ntouch: /tmp/x: Read-only file system\n")
	must(t, os.WriteFile(filepath.Join(sub, "ours"), nil, 0o600))
}

// TestLimits: the groups have the limits, and the program is in them.
func TestLimits(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	memory, pids, shares := int64(64<<20), int64(77), uint64(512)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	b.spec.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares}
	b.write()
	b.ok("create", "x")
	b.ok("start", "x")
	for _, file := range []struct{ name, v1, v2, value string }{
		{"memory", "memory/%/memory.limit_in_bytes", "%/memory.max", "67108864"},
		{"pids", "pids/%/pids.max", "%/pids.max", "77"},
		{"cpu", "cpu/%/cpu.shares", "%/cpu.weight", ""},
	} {
		found := false
		for _, path := range []string{file.v1, file.v2} {
			path = "/sys/fs/cgroup/" + strings.Replace(path, "%", strings.Trim(b.spec.Linux.CgroupsPath, "/"), 1)
			text, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			found = true
			if got := strings.TrimSpace(string(text)); file.value != "" && got != file.value {
				t.Errorf("%s is %s, want %s", path, got, file.value)
			}
			procs, _ := os.ReadFile(filepath.Dir(path) + "/cgroup.procs")
			if len(strings.Fields(string(procs))) != 1 {
				t.Errorf("processes in %s: %q", filepath.Dir(path), procs)
			}
		}
		if !found {
			t.Errorf("no group has a limit for %s", file.name)
		}
	}
	b.ok("delete", "--force", "x")
}

// TestTooLittleMemory: a limit that no program can start in is an error that says so, of run and of start.
func TestTooLittleMemory(t *testing.T) {
	b := newBundle(t, "true")
	limit := int64(8 << 10)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	b.write()
	const words = "too small for a start" // v2 tells how small
	b.fails(words, "run", "x")
	b.nothingLeft()
	if r := b.mini("create", "x"); r.code == 0 {
		b.fails(words, "start", "x")
		b.ok("delete", "--force", "x")
	} else if !strings.Contains(r.err, words) {
		t.Errorf("create: %+v", r)
	}
	b.nothingLeft()
	limit = 512 << 10 // what crun needs
	b.write()
	b.ok("run", "x")
}
