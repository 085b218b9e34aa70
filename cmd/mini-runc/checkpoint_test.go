package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// needCriu skips where criu does not work. Debian 12's needs a kernel before 6.13 or so: the test node has one, and
// there these tests run.
func needCriu(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("runs criu: must be root")
	}
	// The tests' network namespace is new; criu connects to itself to learn what the kernel can.
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("ip link set lo up: %v: %s", err, out)
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work on this kernel: %v: %s", err, strings.TrimSpace(string(out)))
	}
}

// TestCheckpointSaysWhy: where criu cannot, the error says so, and the container runs on.
func TestCheckpointSaysWhy(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.write()
	b.ok("run", "-d", "x")
	cmd := b.command("checkpoint", "x")
	cmd.Env = []string{"PATH=/nowhere"}
	for _, words := range []string{"checkpoint container x: criu cannot be used on this machine (kernel ", "criu is not installed"} {
		if r := b.call(clone(cmd)); r.code != 1 || !strings.Contains(r.err, words) {
			t.Errorf("%+v; want %q", r, words)
		}
	}
	want(t, b.status("x"), "running")
	cmd = b.command("restore", "y")
	cmd.Env = []string{"PATH=/nowhere"}
	if r := b.call(cmd); r.code != 1 || !strings.Contains(r.err, "criu is not installed") {
		t.Errorf("%+v", r)
	}
	for _, tc := range []struct{ words, line string }{
		{"ADDRESS:PORT", "checkpoint --page-server nowhere x"},
		{"Invalid port number", "checkpoint --page-server host:many x"},
		{"--parent-path must be relative", "checkpoint --parent-path /x x"},
		{"invalid --parent-path", "checkpoint --parent-path nowhere x"},
		{`namespace "ipc" is not supported`, "checkpoint --empty-ns ipc x"},
		{"container does not exist", "checkpoint nobody"},
		{`"restore" requires exactly 1 argument(s)`, "restore"},
	} {
		b.fails(tc.words, strings.Fields(tc.line)...)
	}
	b.ok("delete", "-f", "x")
	b.ok("create", "x")
	b.fails("Container cannot be checkpointed in created state", "checkpoint", "x")
	b.ok("delete", "x")
}

func clone(cmd *exec.Cmd) *exec.Cmd {
	c := exec.Command(cmd.Path, cmd.Args[1:]...)
	c.Dir, c.Env, c.SysProcAttr = cmd.Dir, cmd.Env, cmd.SysProcAttr
	return c
}

// counting is a program that shows by what it writes whether it began anew. It counts into descriptor 3, too.
const counting = `token=$(busybox head -c 8 /dev/urandom | busybox md5sum); i=0
while :; do i=$((i+1)); echo "$token $i" > /rec/new; busybox mv /rec/new /rec/count; echo $i >&3; busybox sleep 0.1; done`

// newCounting makes a bundle of it.
func newCounting(t *testing.T) (*bundleDir, func() (string, int)) {
	needCriu(t)
	b := newBundle(t, "exec 3>/dev/null; "+counting)
	rec := b.record()
	b.write()
	return b, func() (string, int) {
		t.Helper()
		waitText(t, filepath.Join(rec, "count"), " - ")
		text, err := os.ReadFile(filepath.Join(rec, "count"))
		must(t, err)
		token, n, _ := strings.Cut(strings.TrimSpace(string(text)), "  - ")
		i, err := strconv.Atoi(n)
		must(t, err)
		return token, i
	}
}

// quiet calls mini-runc with nothing on its streams: criu can restore /dev/null, a file of ours not.
func (b *bundleDir) quiet(args ...string) {
	b.t.Helper()
	log := filepath.Join(b.dir, "quiet.log")
	_ = os.Remove(log)
	cmd := b.command(append([]string{"--log", log}, args...)...)
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log)
		b.t.Fatalf("mini-runc %q: %v\n%s", args, err, text)
	}
}

// goesOn waits until the program counts beyond n and has never begun anew.
func goesOn(t *testing.T, count func() (string, int), token string, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, i := count()
		if got != token {
			t.Fatal("the program has begun anew")
		}
		if i > n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the program stands at %d", i)
		}
	}
}

// may gives what a process may do: its mounts, ids, capabilities, filters, limits and label. no_new_privs is left out,
// which criu before 3.19 loses.
func may(t *testing.T, pid int) string {
	t.Helper()
	var lines []string
	read := func(file string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		must(t, err)
		return string(text)
	}
	for line := range strings.Lines(read("mountinfo")) {
		f := strings.Fields(line)
		lines = append(lines, fmt.Sprintf("mount %s of %s: %s", f[4], f[3], f[5]))
	}
	slices.Sort(lines) // criu mounts in an order of its own
	for line := range strings.Lines(read("status")) {
		for _, key := range []string{"Umask:", "Uid:", "Gid:", "Groups:", "Cap", "Seccomp"} {
			if strings.HasPrefix(line, key) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	label, _ := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", pid))
	lines = append(lines, read("limits"), read("oom_score_adj"), "label "+string(label))
	return strings.Join(lines, "\n")
}

// TestCheckpointRestore: a container is saved, is gone, and goes on where it was.
func TestCheckpointRestore(t *testing.T) {
	b, count := newCounting(t)
	b.spec.Process.Args[2] = "busybox sh -c 'busybox true & exec busybox sleep 1000' & exec 3>/rec/all; " + counting // with a zombie
	limit := int64(30)
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	b.write()
	b.quiet("run", "-d", "x")
	token, n := count()
	goesOn(t, count, token, n)
	before := may(t, b.pid("x"))
	b.ok("checkpoint", "--image-path", "img", "--work-path", "work", "x")
	b.fails("container does not exist", "state", "x")
	b.nothingLeft()
	for _, path := range []string{"img/inventory.img", "img/descriptors.json", "work/dump.log"} {
		if _, err := os.Stat(filepath.Join(b.dir, path)); err != nil {
			t.Error(err)
		}
	}
	_, n = count()
	// A file that is not as it was: criu gives up in the middle, and nothing stays of what it has made until then.
	all := filepath.Join(b.dir, "rec/all")
	info, err := os.Stat(all)
	must(t, err)
	must(t, os.Truncate(all, info.Size()+1))
	if r := b.mini("restore", "-d", "--image-path", "img", "--work-path", "work", "y"); r.code != 1 || !strings.Contains(r.err, "criu failed: type RESTORE") || !strings.Contains(r.err, "rec/all has bad size") {
		t.Errorf("%+v", r)
	}
	b.nothingLeft()
	must(t, os.Truncate(all, info.Size()))
	b.quiet("restore", "-d", "--image-path", "img", "--work-path", "work", "--pid-file", "pid", "y")
	want(t, b.status("y"), "running")
	pid, err := os.ReadFile(filepath.Join(b.dir, "pid"))
	must(t, err)
	want(t, string(pid), strconv.Itoa(b.pid("y")))
	goesOn(t, count, token, n)
	want(t, may(t, b.pid("y")), before)
	lines, err := os.ReadFile(all) // the open file has gone on at its offset
	must(t, err)
	for i, line := range strings.Fields(string(lines)) {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d of the open file is %q", i+1, line)
		}
	}
	want(t, b.ok("exec", "y", "sh", "-c", "echo $PPID; busybox hostname; busybox grep -c /proc/kcore /proc/mounts"), "0\nrunc\n1\n")
	group, err := os.ReadFile(fmt.Sprintf("/proc/%s/cgroup", pid))
	must(t, err)
	if !strings.Contains(string(group), b.spec.Linux.CgroupsPath) {
		t.Errorf("it is in\n%s", group)
	}
	b.ok("pause", "y")
	b.ok("resume", "y")
	b.ok("kill", "y", "KILL")
	b.waitStatus("y", "stopped")
	b.ok("delete", "y")
	b.nothingLeft()
}

// TestCheckpointLeaves: --leave-running and --pre-dump leave it running; a later dump has the former as its parent.
func TestCheckpointLeaves(t *testing.T) {
	b, count := newCounting(t)
	b.quiet("run", "-d", "x")
	token, n := count()
	b.ok("checkpoint", "--pre-dump", "--image-path", "img/1", "x")
	goesOn(t, count, token, n)
	b.ok("checkpoint", "--image-path", "img/2", "--parent-path", "../1", "--auto-dedup", "--leave-running", "--file-locks", "--link-remap", "x")
	if _, err := os.Stat(filepath.Join(b.dir, "img/2/parent")); err != nil {
		t.Error(err)
	}
	_, n = count()
	goesOn(t, count, token, n)
	b.ok("delete", "-f", "x")
	b.quiet("restore", "-d", "--image-path", "img/2", "--auto-dedup", "--file-locks", "--manage-cgroups-mode", "ignore", "--empty-ns", "network", "x")
	goesOn(t, count, token, n)
	b.ok("delete", "-f", "x")
}

// TestRestoreForeground: its end is the end of the call, and its exit status the call's; a pipe is a pipe again.
func TestRestoreForeground(t *testing.T) {
	needCriu(t)
	b := newBundle(t, "read line; echo got $line; exit 7")
	b.write()
	in, out := pipes(t)
	cmd := b.command("run", "-d", "x")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in.r, out.w, out.w
	must(t, cmd.Run())
	b.ok("checkpoint", "--image-path", "img", "x")
	in, out = pipes(t)
	cmd = b.command("--log", filepath.Join(b.dir, "log"), "restore", "--image-path", "img", "--pid-file", "pid", "x")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in.r, out.w, out.w
	must(t, cmd.Start())
	in.r.Close()
	out.w.Close()
	waitFile(t, filepath.Join(b.dir, "pid"))
	b.waitStatus("x", "running")
	_, err := in.w.WriteString("words\n")
	must(t, err)
	want(t, readAll(out.r), "got words\n")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit status %d", code)
	}
	b.nothingLeft()
}

type pipe struct{ r, w *os.File }

func pipes(t *testing.T) (in, out pipe) {
	t.Helper()
	for _, p := range []*pipe{&in, &out} {
		var err error
		p.r, p.w, err = os.Pipe()
		must(t, err)
		t.Cleanup(func() { p.r.Close(); p.w.Close() })
	}
	return in, out
}

// TestRestoreTerminal: the terminal's master goes to whoever listens.
func TestRestoreTerminal(t *testing.T) {
	needCriu(t)
	b := newBundle(t, "while read line; do echo got $line; done")
	b.spec.Process.Terminal = true
	b.write()
	l, err := net.Listen("unix", filepath.Join(b.dir, "console.sock"))
	must(t, err)
	defer l.Close()
	b.ok("run", "-d", "--console-socket", "console.sock", "x")
	first := receiveMaster(t, l)
	b.ok("checkpoint", "--shell-job", "--image-path", "img", "x")
	first.Close()
	b.quiet("restore", "-d", "--shell-job", "--console-socket", "console.sock", "--image-path", "img", "x")
	master := receiveMaster(t, l)
	defer master.Close()
	_, err = master.WriteString("hello\n")
	must(t, err)
	p := sitDown(t, master)
	p.expect("got hello\r\n")
	b.ok("delete", "-f", "x")
}

// TestCheckpointTCP: an established connection goes along with --tcp-established, and not without.
func TestCheckpointTCP(t *testing.T) {
	needCriu(t)
	b := newBundle(t, `busybox ip link set lo up
busybox nc -l -p 7 -e sh -c 'while read l; do echo "$l" > /rec/got; done' &
busybox sleep 1
while :; do echo ping; busybox sleep 0.1; done | busybox nc 127.0.0.1 7`)
	rec := b.record()
	caps := append(b.spec.Process.Capabilities.Bounding, "CAP_NET_ADMIN")
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	b.write()
	b.quiet("run", "-d", "x")
	waitText(t, filepath.Join(rec, "got"), "ping")
	if r := b.mini("checkpoint", "--image-path", "img", "x"); r.code == 0 || !strings.Contains(r.err, "criu failed: type DUMP") {
		t.Errorf("%+v", r)
	}
	want(t, b.status("x"), "running")
	b.ok("checkpoint", "--tcp-established", "--tcp-skip-in-flight", "--ext-unix-sk", "--image-path", "img", "x")
	must(t, os.Remove(filepath.Join(rec, "got")))
	b.quiet("restore", "-d", "--tcp-established", "--ext-unix-sk", "--no-subreaper", "--no-pivot", "--bundle", b.dir, "--image-path", "img", "x")
	waitText(t, filepath.Join(rec, "got"), "ping")
	b.ok("delete", "-f", "x")
}

// TestCheckpointPages: memory goes to a page server, and comes from one that is asked when it is needed.
func TestCheckpointPages(t *testing.T) {
	b, count := newCounting(t)
	b.quiet("run", "-d", "x")
	token, n := count()
	img := filepath.Join(b.dir, "img")
	must(t, os.Mkdir(img, 0o700))
	server := exec.Command("criu", "page-server", "--images-dir", img, "--port", "7077")
	must(t, server.Start())
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	waitPort(t, "127.0.0.1:7077")
	b.ok("checkpoint", "--page-server", "127.0.0.1:7077", "--image-path", "img", "x")
	if pages, _ := filepath.Glob(filepath.Join(img, "pages-*.img")); len(pages) == 0 {
		t.Error("the page server has got no pages")
	}
	b.quiet("restore", "-d", "--image-path", "img", "x")
	goesOn(t, count, token, n)

	r, w, err := os.Pipe()
	must(t, err)
	lazy := b.command("checkpoint", "--lazy-pages", "--page-server", "0.0.0.0:7078", "--status-fd", "3", "--image-path", "lazy", "--work-path", "lazywork", "x")
	lazy.ExtraFiles = []*os.File{w}
	must(t, lazy.Start())
	w.Close()
	if text := readAll(r); text != "\x00" {
		t.Errorf("--status-fd got %q", text)
	}
	_, n = count()
	daemon := exec.Command("criu", "lazy-pages", "--images-dir", filepath.Join(b.dir, "lazy"), "--work-dir", filepath.Join(b.dir, "lazywork"), "--page-server", "--address", "127.0.0.1", "--port", "7078")
	must(t, daemon.Start())
	defer func() { _ = daemon.Process.Kill(); _ = daemon.Wait() }()
	waitFile(t, filepath.Join(b.dir, "lazywork/lazy-pages.socket"))
	b.spec.Linux.CgroupsPath += "-2" // the first one is being left by the container that gives its pages
	b.write()
	b.quiet("restore", "-d", "--lazy-pages", "--image-path", "lazy", "--work-path", "lazywork", "y")
	goesOn(t, count, token, n)
	must(t, lazy.Wait())
	b.ok("delete", "-f", "y")
}

func waitPort(t *testing.T, address string) {
	t.Helper()
	port := fmt.Sprintf(":%04X ", 7077)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile("/proc/net/tcp") // a connection would be taken for the dump's
		more, _ := os.ReadFile("/proc/net/tcp6")
		if strings.Contains(string(text)+string(more), port) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens at %s", address)
		}
	}
}

// TestRestoreRefused: images that ask for more than config.json grants are refused before criu runs.
func TestRestoreRefused(t *testing.T) {
	b, count := newCounting(t)
	errno := uint(1)
	b.spec.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
	b.write()
	b.quiet("run", "-d", "x")
	count()
	b.ok("checkpoint", "--image-path", "img", "x")
	whole := *b.spec
	for _, tc := range []struct {
		name   string
		change func(*specs.Spec)
		words  string
	}{
		{"uid", func(s *specs.Spec) { s.Process.User.UID = 1000 }, "uid 0 is not that of process.user"},
		{"capability", func(s *specs.Spec) {
			less := []string{"CAP_KILL"}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: less, Effective: less, Permitted: less, Inheritable: less}
		}, "are none of process.capabilities"},
		{"seccomp", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"acct"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
		}, "has no seccomp filter"},
		{"external mount", func(s *specs.Spec) { s.Mounts = s.Mounts[:len(s.Mounts)-1] }, "mount on /rec of the images: it is external"},
		{"masked path", func(s *specs.Spec) { s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/cpuinfo") }, "leave /proc/cpuinfo open"},
		{"read-only path", func(s *specs.Spec) { s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/proc/cpuinfo") }, "have /proc/cpuinfo writable"},
		{"namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}, "cgroup namespace"},
		{"file system", func(s *specs.Spec) { s.Mounts = append(s.Mounts[:4:4], s.Mounts[5:]...) }, "mount on /dev/mqueue of the images: its file system"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := whole
			l, p := *whole.Linux, *whole.Process
			s.Linux, s.Process = &l, &p
			s.Mounts = append([]specs.Mount(nil), whole.Mounts...)
			tc.change(&s)
			b.spec = &s
			b.write()
			b.fails("the checkpoint asks for more than config.json grants: ", "restore", "-d", "--image-path", "img", "x")
			b.fails(tc.words, "restore", "-d", "--image-path", "img", "x")
			if _, err := os.Stat(filepath.Join(b.dir, "img/restore.log")); err == nil {
				t.Error("criu has run")
			}
			b.nothingLeft()
		})
	}
	b.spec = &whole
	b.write()
	b.quiet("restore", "-d", "--image-path", "img", "x")
	b.ok("delete", "-f", "x")
}
