package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What others have paid for: each test is an attack on mini-runc, and is named after the first runtime that it met. They are
// in cve_test.go and cve_race_test.go; docs/oci.md has them all, with what stops each.

// everything gives a container all capabilities that we have.
func everything(s *specs.Spec) {
	var all []string
	for _, name := range []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_ADMIN", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"} {
		all = append(all, "CAP_"+name)
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	s.Process.NoNewPrivileges = false
}

func digest(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// fullPipe gives the end of a pipe that nothing can be written to until the other is read.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	fd := int(w.Fd()) // makes it blocking
	must(t, unix.SetNonblock(fd, true))
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	must(t, unix.SetNonblock(fd, false))
	return r, w
}

// TestCVE20195736: a container has the runtime execute itself, by a script for /proc/self/exe, and writes to the program that
// it gets hold of so. The program stands still meanwhile: it has nowhere to write its complaint to.
func TestCVE20195736(t *testing.T) {
	helper := filepath.Join(programs, "cri-mini-init")
	before := []string{digest(t, helper), digest(t, filepath.Join(programs, "mini-runc"))}
	b := newBundle(t, "exec busybox sleep 1000")
	everything(b.spec)
	b.withAttacker()
	must(t, os.WriteFile(filepath.Join(b.dir, "rootfs/bin/evil"), []byte("#!/proc/self/exe\n"), 0o755))
	b.write()
	b.ok("run", "-d", "x")
	defer b.ok("delete", "-f", "x")
	for _, program := range []string{"/proc/self/exe", "/bin/evil"} {
		r, w := fullPipe(t)
		victim := b.command("exec", "x", program)
		victim.Stdout, victim.Stderr = w, w
		must(t, victim.Start())
		w.Close()
		a := b.attack("binary")
		held := a.until("holds")
		if strings.Contains(held, programs) {
			t.Errorf("the attacker %s: the file itself", held)
		}
		a.until("waits")
		go func() {
			for buf := make([]byte, 4096); ; {
				if _, err := r.Read(buf); err != nil {
					r.Close()
					return
				}
			}
		}()
		_ = victim.Wait()
		a.end()
	}
	if after := []string{digest(t, helper), digest(t, filepath.Join(programs, "mini-runc"))}; !slices.Equal(before, after) {
		t.Error("a program of the host has changed")
	}
	want(t, b.ok("exec", "x", "busybox", "echo", "as before"), "as before\n")
}

// refused wants run and create to fail with words, and nothing to be left.
func (b *bundleDir) refused(words string) {
	b.t.Helper()
	b.write()
	b.fails(words, "run", "x")
	b.nothingLeft()
}

// fakeProc makes a directory that looks like /proc as far as a label or an oom score is written there.
func fakeProc(t *testing.T, dir string) {
	t.Helper()
	for _, file := range []string{"self/attr/exec", "self/attr/apparmor/exec", "self/oom_score_adj", "sys/kernel/msgmax", "thread-self/attr/exec", "1/attr/exec"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, file), []byte("fake\n"), 0o666))
	}
}

// nothingWritten wants all files of a fake /proc to be as they were.
func nothingWritten(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(file string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if text, _ := os.ReadFile(file); string(text) != "fake\n" {
				t.Errorf("%s was written to: %q", file, text)
			}
		}
		return err
	}))
}

// TestCVE201916884: an image or a pod mounts a volume over the files of /proc that labels are written to, so that they go
// nowhere.
func TestCVE201916884(t *testing.T) {
	volume := t.TempDir()
	fakeProc(t, volume)
	bind := func(source, dest string) specs.Mount {
		return specs.Mount{Type: "bind", Source: filepath.Join(volume, source), Destination: dest, Options: []string{"rbind"}}
	}
	for _, tc := range []struct {
		name  string
		mount specs.Mount
		link  string // of the image: name and target
		words string
	}{
		{"over all", bind("", "/proc"), "", "only procfs can be mounted on /proc"},
		{"tmpfs over all", specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/proc"}, "", "only procfs can be mounted on /proc"},
		{"over the attributes", bind("self/attr", "/proc/self/attr"), "", "lies inside /proc"},
		{"over a file", bind("self/attr/exec", "/proc/thread-self/attr/exec"), "", "lies inside /proc"},
		{"with ..", bind("self/attr", "/proc/sys/../self/attr"), "", "lies inside /proc"},
		{"by a link of the image", bind("self/attr", "/attr"), "attr /proc/self/attr", "too many levels of symbolic links"},
		{"by a relative link", bind("self/attr", "/attr"), "attr proc/self/attr", "too many levels of symbolic links"},
		{"by a link to a parent", bind("self/attr/exec", "/p/thread-self/attr/exec"), "p /proc", "too many levels of symbolic links"},
		{"tmpfs by a link", specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/attr"}, "attr /proc/self/attr", "too many levels of symbolic links"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "busybox cat /proc/self/attr/exec /proc/self/oom_score_adj")
			if name, target, ok := strings.Cut(tc.link, " "); ok {
				must(t, os.Symlink(target, filepath.Join(b.dir, "rootfs", name)))
			}
			score := 7
			b.spec.Process.OOMScoreAdj = &score
			b.spec.Mounts = append(b.spec.Mounts, tc.mount)
			b.refused(tc.words)
			nothingWritten(t, volume)
		})
	}
}

// TestCVE201919921: the image's /proc is a link, or lies in a volume that another container writes to, so that procfs comes
// to lie elsewhere and a look-alike is written to. TestCVE202327561 is the same once more, for it came back, and for /sys.
func TestCVE201919921(t *testing.T) { linkedKernelFS(t, "proc") }

func TestCVE202327561(t *testing.T) {
	linkedKernelFS(t, "proc")
	linkedKernelFS(t, "sys")
}

func linkedKernelFS(t *testing.T, name string) {
	for _, target := range []string{"/tmp/fake", "tmp/fake", "../../../../../../tmp/fake", "/rec/fake", "/nowhere", name, "/dev/shm"} {
		t.Run(name+" to "+target, func(t *testing.T) {
			b := newBundle(t, "true")
			root := filepath.Join(b.dir, "rootfs")
			fakeProc(t, filepath.Join(root, "tmp/fake"))
			fakeProc(t, filepath.Join(root, "rec/fake"))
			must(t, os.Remove(filepath.Join(root, name)))
			must(t, os.Symlink(target, filepath.Join(root, name)))
			score := 7
			b.spec.Process.OOMScoreAdj = &score
			b.spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4096"}
			b.refused("too many levels of symbolic links")
			nothingWritten(t, filepath.Join(root, "tmp/fake"))
			nothingWritten(t, filepath.Join(root, "rec/fake"))
		})
	}
}

// TestCVE202328642: another name of /proc is mounted over, before procfs is there or after.
func TestCVE202328642(t *testing.T) {
	for _, before := range []bool{false, true} {
		b := newBundle(t, "busybox stat -f -c %T /proc; busybox cat /proc/self/oom_score_adj")
		must(t, os.Symlink("proc", filepath.Join(b.dir, "rootfs/alias")))
		volume := filepath.Join(b.dir, "volume")
		fakeProc(t, volume)
		score := 777
		b.spec.Process.OOMScoreAdj = &score
		m := specs.Mount{Type: "bind", Source: volume, Destination: "/alias", Options: []string{"rbind"}}
		if before {
			b.spec.Mounts = slices.Insert(b.spec.Mounts, 0, m)
			b.write()
			want(t, b.ok("run", "x"), "proc\n777\n") // procfs lies on top
		} else {
			b.spec.Mounts = append(b.spec.Mounts, m)
			b.refused("too many levels of symbolic links")
		}
		nothingWritten(t, volume)
	}
}

// TestCVE202224769 (and CVE-2022-29162, the same of exec --cap): with inheritable capabilities that nobody has asked for, a
// program with inheritable file capabilities gives them to any user.
func TestCVE202224769(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	b.spec.Process.NoNewPrivileges = false // it would do without the defence
	tool := filepath.Join(b.dir, "rootfs/bin/busybox-tool")
	program, err := os.ReadFile("/bin/busybox")
	must(t, err)
	must(t, os.WriteFile(tool, program, 0o755))
	// struct vfs_cap_data: revision 2, effective bit; permitted none, inheritable CAP_KILL and CAP_NET_BIND_SERVICE.
	file := []byte{1, 0, 0, 2, 0, 0, 0, 0, 0x20, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(tool, "security.capability", file, 0))
	b.write()
	b.ok("run", "-d", "x")
	defer b.ok("delete", "-f", "x")
	none := "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
	if got := procFile(t, b.pid("x"), "status"); !strings.Contains(got, none) {
		t.Errorf("the container has\n%s", got)
	}
	for _, cap := range [][]string{nil, {"--cap", "CAP_KILL"}, {"--cap", "CAP_SYS_ADMIN"}} {
		args := slices.Concat([]string{"exec"}, cap, []string{"x", "/bin/busybox-tool", "grep", "-E", "Cap(Inh|Prm|Eff)", "/proc/self/status"})
		r := b.mini(args...)
		if !strings.Contains(r.out, "CapInh:\t0000000000000000\n") || len(cap) == 0 && r.out != none {
			t.Errorf("%q: %+v", cap, r)
		}
	}
}

// TestCVE202421626: the working directory is a descriptor of the runtime's, or of its caller, that is a directory of the host.
func TestCVE202421626(t *testing.T) {
	b := running(t, nil)
	host, err := os.Open("/")
	must(t, err)
	defer host.Close()
	secret := filepath.Base(b.dir)
	inside := newBundle(t, "busybox ls -d "+b.dir+" ."+b.dir+" ../../../../../.."+b.dir+"; busybox pwd; busybox ls /proc/self/fd")
	inside.spec.Process.Env = append(inside.spec.Process.Env, "SECRET="+secret)
	for n := range 24 {
		for _, link := range []string{"/proc/self/fd/%d", "/proc/self/fd/%d/../../../..", "/proc/1/fd/%d", "/proc/self/fd/%d/root"} {
			cwd := fmt.Sprintf(link, n)
			inside.spec.Process.Cwd = cwd
			inside.write()
			for _, flags := range [][]string{nil, {"--preserve-fds", "2"}} {
				run := inside.command(slices.Concat([]string{"run"}, flags, []string{"y"})...)
				run.ExtraFiles = []*os.File{host, host} // a careless caller's, 3 and 4
				inside.outside(inside.call(run), cwd)
				exec := b.command(slices.Concat([]string{"exec", "--cwd", cwd}, flags, []string{"x", "sh", "-c", "busybox ls -d ." + b.dir + "; busybox pwd"})...)
				exec.ExtraFiles = run.ExtraFiles
				b.outside(b.call(exec), cwd)
			}
		}
	}
	exec := b.command("exec", "x", "busybox", "ls", "/proc/self/fd")
	exec.ExtraFiles = []*os.File{host, host}
	want(t, b.call(exec).out, "0\n1\n2\n3\n") // the last is the directory that is listed
}

// outside tells whether a program has found the bundle, which is the host's, from its working directory.
func (b *bundleDir) outside(r result, cwd string) {
	b.t.Helper()
	for line := range strings.Lines(r.out) {
		if strings.HasPrefix(line, ".") || strings.Contains(line, b.dir+"\n") && !strings.Contains(line, "ls:") || strings.Contains(line, "unreachable") {
			b.t.Errorf("from %s the host is reached: %+v", cwd, r)
		}
	}
}

// TestCVE202531133: the image's /dev/null is another file, and the container gets that one where a path should be masked.
func TestCVE202531133(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	must(t, err)
	for _, tc := range []struct {
		name string
		null func(dir string) error
	}{
		{"link to a kernel parameter", func(dir string) error {
			return os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(dir, "null"))
		}},
		{"dangling link", func(dir string) error { return os.Symlink("/nowhere", filepath.Join(dir, "null")) }},
		{"file", func(dir string) error { return os.WriteFile(filepath.Join(dir, "null"), []byte("FAKE\n"), 0o666) }},
		{"another device", func(dir string) error {
			return unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
		}},
		{"directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, "null"), 0o755) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "busybox stat -c '%n %t:%T' /proc/timer_list /etc/secret; busybox cat /proc/timer_list /etc/secret; echo '|/evil' > /proc/timer_list; echo '|/evil' > /etc/secret")
			everything(b.spec)
			b.spec.Linux.MaskedPaths = []string{"/proc/timer_list", "/etc/secret"}
			b.spec.Linux.ReadonlyPaths = nil
			must(t, os.WriteFile(filepath.Join(b.dir, "rootfs/etc/secret"), []byte("SECRET\n"), 0o644))
			dev := t.TempDir()
			must(t, tc.null(dev))
			b.spec.Mounts = append(b.spec.Mounts[:1:1], specs.Mount{Type: "bind", Source: dev, Destination: "/dev", Options: []string{"rbind"}})
			b.write()
			want(t, b.ok("run", "x"), "/proc/timer_list 1:3\n/etc/secret 1:3\n")
		})
	}
	if again, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(again) != string(pattern) {
		t.Errorf("core_pattern was %q and is %q", pattern, again)
	}
}

// TestCVE202552565: where the terminal is opened or put, the image has a link to a file of the kernel's or of a volume.
func TestCVE202552565(t *testing.T) {
	for _, tc := range []struct {
		name, link, target string
		devpts             bool
		words              string
	}{
		{"console is a link", "console", "/proc/sysrq-trigger", true, "console: too many levels of symbolic links"},
		{"console is a link to a volume", "console", "/rec/file", true, "console: too many levels of symbolic links"},
		{"console is a link out of the root", "console", "../../../../../../../../proc/sysrq-trigger", true, "console: too many levels of symbolic links"},
		{"ptmx is a link", "pts/ptmx", "/proc/sys/kernel/core_pattern", false, "console: "},
		{"ptmx is a file of a volume", "pts/ptmx", "/rec/file", false, "console: invalid cross-device link"},
		{"ptmx is a device outside of devpts", "pts/ptmx", "/rec/ptmx", false, "console: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "true")
			dev := filepath.Join(b.dir, "rootfs/dev")
			must(t, os.MkdirAll(filepath.Join(dev, "pts"), 0o755))
			must(t, os.Symlink(tc.target, filepath.Join(dev, tc.link)))
			rec := b.record()
			must(t, os.WriteFile(filepath.Join(rec, "file"), []byte("mine\n"), 0o644))
			must(t, unix.Mknod(filepath.Join(rec, "ptmx"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))))
			b.spec.Process.Terminal, b.spec.Root.Readonly = true, false
			pts, volume := b.spec.Mounts[2], b.spec.Mounts[len(b.spec.Mounts)-1]
			b.spec.Mounts = b.spec.Mounts[:1:1]
			if tc.devpts {
				b.spec.Mounts = append(b.spec.Mounts, pts)
			}
			b.spec.Mounts = append(b.spec.Mounts, volume)
			b.write()
			socket := filepath.Join(b.dir, "console.sock")
			l, err := net.Listen("unix", socket)
			must(t, err)
			defer l.Close()
			b.fails(tc.words, "run", "--detach", "--console-socket", socket, "x")
			b.nothingLeft()
			if text, _ := os.ReadFile(filepath.Join(rec, "file")); string(text) != "mine\n" {
				t.Errorf("the volume's file is %q", text)
			}
		})
	}
}

// TestCVE202552881: a container mounts over the files of /proc that the runtime writes for an exec. What is set is real.
func TestCVE202552881(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	everything(b.spec)
	rec := b.record()
	fakeProc(t, rec)
	b.spec.Linux.ReadonlyPaths, b.spec.Linux.MaskedPaths = nil, nil
	b.write()
	b.ok("run", "-d", "x")
	defer b.ok("delete", "-f", "x")
	b.ok("exec", "x", "busybox", "mount", "--bind", "/rec", "/proc")
	score := 555
	p := *b.spec.Process
	p.OOMScoreAdj, p.Args = &score, []string{"busybox", "sleep", "500"}
	want(t, procFile(t, b.execDetached(p), "oom_score_adj"), "555\n")
	nothingWritten(t, rec)
}

// TestCVE202641579: the image's /dev is a link out of the root, where the runtime removes a ptmx and makes links.
func TestCVE202641579(t *testing.T) {
	for _, mounted := range []bool{true, false} {
		for _, link := range []string{"%s", "../../../../../../../..%s"} {
			b := newBundle(t, "busybox ls -l /dev/ptmx")
			canary := filepath.Join(b.dir, "canary")
			must(t, os.MkdirAll(filepath.Join(canary, "pts"), 0o777))
			must(t, os.WriteFile(filepath.Join(canary, "ptmx"), []byte("mine\n"), 0o644))
			must(t, os.Remove(filepath.Join(b.dir, "rootfs/dev")))
			must(t, os.Symlink(fmt.Sprintf(link, canary), filepath.Join(b.dir, "rootfs/dev")))
			b.spec.Root.Readonly = false
			if !mounted {
				b.spec.Mounts = b.spec.Mounts[:1]
			}
			b.write()
			if r := b.mini("run", "x"); r.code == 0 && !strings.Contains(r.out, "pts/ptmx") {
				t.Errorf("%+v", r)
			}
			entries, err := os.ReadDir(canary)
			must(t, err)
			text, _ := os.ReadFile(filepath.Join(canary, "ptmx"))
			if len(entries) != 2 || string(text) != "mine\n" {
				t.Errorf("the host's directory has %v, ptmx is %q", entries, text)
			}
			b.nothingLeft()
		}
	}
}

// TestCVE202630892: --user is read to its last letter: nobody becomes root for a runtime's idea of a number.
func TestCVE202630892(t *testing.T) {
	b := running(t, nil)
	for user, ids := range map[string]string{"1": "1:0", "7:8": "7:8", "01": "1:0", "4294967294": "4294967294:0"} {
		want(t, b.ok("exec", "--user", user, "x", "sh", "-c", "echo $(busybox id -u):$(busybox id -g)"), ids+"\n")
	}
	for _, user := range []string{"1x", "x1", "-1", "+1", " 1", "1 ", "0x1", "1.0", "1:", ":1", "1:x", "1:-1", "1:1:1", "4294967296", "18446744073709551616", "root"} {
		b.fails("--user:", "exec", "--user", user, "x", "true")
	}
	for _, user := range []string{"4294967295", "0:4294967295", "1:4294967295"} { // no change, to setresuid(2)
		b.fails("4294967295 is not an id", "exec", "--user", user, "x", "true")
	}
	text, err := json.Marshal(specs.Process{Args: []string{"true"}, Cwd: "/", User: specs.User{UID: 1<<32 - 1}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, "process.json"), text, 0o600))
	b.fails("process.user.uid: 4294967295 is not an id", "exec", "--process", "process.json", "x")
}

// TestCVE20169962: a process of the container looks into those that are on their way into it, which still hold descriptors
// of the host: one that waits at its gate in the same PID namespace, and execs as they come.
func TestCVE20169962(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*specs.Spec)
	}{
		{"root", func(*specs.Spec) {}},
		{"root of a user namespace, with all its capabilities", func(s *specs.Spec) { withUserNamespace(s); everything(s) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "exec busybox sleep 1000")
			tc.change(b.spec)
			b.withAttacker()
			b.write()
			b.ok("run", "-d", "x")
			defer b.ok("delete", "-f", "x")
			a := b.attack("process")
			a.until("ready")
			second := newBundle(t, "true")
			tc.change(second.spec)
			for i, n := range second.spec.Linux.Namespaces {
				if n.Type == specs.PIDNamespace || n.Type == specs.UserNamespace {
					second.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", b.pid("x"), n.Type)
				}
			}
			second.write()
			second.ok("create", "y")
			for range 30 {
				b.ok("exec", "x", "busybox", "true")
			}
			second.ok("delete", "-f", "y")
			a.in.Close()
			if seen := a.until("seen"); seen == "seen 0" {
				t.Error("the attacker has seen nobody, not even the process at its gate")
			}
			a.end()
		})
	}
}
