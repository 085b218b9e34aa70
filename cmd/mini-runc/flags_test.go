package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestHelp: every option has words, and a short name stands beside its long one.
func TestHelp(t *testing.T) {
	b := newBundle(t, "")
	b.write()
	for _, name := range order {
		out := b.ok("help", name)
		if !strings.HasPrefix(out, "usage: mini-runc "+name) {
			t.Errorf("help %s: %s", name, out)
		}
		_, options, _ := strings.Cut(out, "\nOptions:\n")
		for line := range strings.Lines(options) {
			if f := strings.Fields(line); len(f) < 3 || !strings.HasPrefix(f[0], "--") {
				t.Errorf("help %s: %q says too little", name, line)
			}
		}
	}
	if out := b.ok("create", "--help"); !strings.Contains(out, "  --bundle, -b VALUE ") || strings.Contains(out, "\n  --b") != strings.Contains(out, "\n  --bundle") {
		t.Errorf("%s", out)
	}
	for _, line := range []string{"mini-runc version ", "\nspec: 1.3.0\n", "\ngo: go", "\nlibseccomp: 2."} {
		if out := b.ok("--version"); !strings.Contains(out, line) {
			t.Errorf("%q lacks %q", out, line)
		}
	}
}

// TestFlagsOfRunc: each option of runc 1.5.2, with its second name, is in our help.
func TestFlagsOfRunc(t *testing.T) {
	b := newBundle(t, "")
	b.write()
	for command, options := range map[string]string{
		"checkpoint": "auto-dedup empty-ns ext-unix-sk file-locks image-path lazy-pages leave-running link-remap manage-cgroups-mode page-server parent-path pre-dump shell-job status-fd tcp-established tcp-skip-in-flight work-path",
		"create":     "bundle,b console-socket no-new-keyring no-pivot pid-file pidfd-socket preserve-fds",
		"delete":     "force,f",
		"events":     "interval stats",
		"exec":       "additional-gids,g apparmor cap,c cgroup console-socket cwd detach,d env,e ignore-paused no-new-privs pid-file pidfd-socket preserve-fds process,p process-label tty,t user,u",
		"kill":       "",
		"list":       "format,f quiet,q",
		"pause":      "",
		"ps":         "format,f",
		"restore":    "auto-dedup bundle,b console-socket detach,d empty-ns ext-unix-sk file-locks image-path lazy-pages lsm-mount-context lsm-profile manage-cgroups-mode no-pivot no-subreaper pid-file shell-job tcp-established work-path",
		"resume":     "",
		"run":        "bundle,b console-socket detach,d keep no-new-keyring no-pivot no-subreaper pid-file pidfd-socket preserve-fds",
		"spec":       "bundle,b rootless",
		"start":      "",
		"state":      "",
		"update":     "blkio-weight cpu-burst cpu-idle cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-share cpuset-cpus cpuset-mems l3-cache-schema mem-bw-schema memory memory-reservation memory-swap pids-limit resources,r",
		"features":   "",
	} {
		help := b.ok(command, "--help")
		for option := range strings.FieldsSeq(options) {
			name, short, both := strings.Cut(option, ",")
			wanted := "\n  --" + name
			if both {
				wanted += ", -" + short
			}
			if !strings.Contains(help, wanted+" ") {
				t.Errorf("%s lacks %s", command, option)
			}
		}
	}
}

// TestLogToStderr: without --log, JSON records go to standard error, once.
func TestLogToStderr(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	r := b.mini("--log-format", "json", "state", "nobody")
	var record struct{ Level, Msg, Time string }
	must(t, json.Unmarshal([]byte(r.err), &record))
	if record.Level != "error" || record.Msg != "container nobody: container does not exist" || r.code != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := time.Parse(time.RFC3339, record.Time); err != nil {
		t.Error(err)
	}
}

// TestListenFDs: the sockets of socket activation come before the descriptors of --preserve-fds, if they are for us.
func TestListenFDs(t *testing.T) {
	b := newBundle(t, "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4")
	must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin/cat")))
	b.write()
	var files []*os.File
	for _, text := range []string{"socket\n", "file\n"} {
		path := filepath.Join(b.dir, strings.TrimSpace(text))
		must(t, os.WriteFile(path, []byte(text), 0o644))
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		files = append(files, f)
	}
	mini := b.command("run", "--preserve-fds", "1", "x")
	script := `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"` // the pid has to be that of the call itself
	cmd := exec.Command("sh", append([]string{"-c", script}, mini.Args...)...)
	cmd.Dir, cmd.ExtraFiles = b.dir, files
	want(t, fmt.Sprint(b.call(cmd)), fmt.Sprint(result{out: "1 1\nsocket\nfile\n"}))

	b.spec.Process.Args[2] = "echo $LISTEN_FDS."
	b.write()
	cmd = b.command("run", "x")
	cmd.Env = append(os.Environ(), "LISTEN_PID=1", "LISTEN_FDS=1")
	want(t, fmt.Sprint(b.call(cmd)), fmt.Sprint(result{out: ".\n"}))
}

// TestPreserveFDsNotGiven: what the caller has not given is not taken from what we have open ourselves.
func TestPreserveFDsNotGiven(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.write()
	for _, command := range []string{"run", "create"} {
		b.fails("unable to stat preserved-fd 0 (of 3)", command, "--preserve-fds", "3", "x")
		b.nothingLeft()
	}
	b.ok("run", "-d", "x")
	b.fails("unable to stat preserved-fd 0 (of 1)", "exec", "--preserve-fds", "1", "x", "true")
	b.ok("delete", "-f", "x")
}

// supervisor is a service manager that listens for READY.
type supervisor struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newSupervisor(t *testing.T, dir string) *supervisor {
	s := &supervisor{t: t, path: filepath.Join(dir, "host-notify.sock")}
	var err error
	s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { s.conn.Close() })
	return s
}

// hears reads the next message; the descriptor of a barrier is closed, as a service manager does.
func (s *supervisor) hears(word string) {
	s.t.Helper()
	must(s.t, s.conn.SetReadDeadline(time.Now().Add(patience)))
	data, oob := make([]byte, 100), make([]byte, 64)
	n, k, _, _, err := s.conn.ReadMsgUnix(data, oob)
	must(s.t, err)
	if cmsgs, err := unix.ParseSocketControlMessage(oob[:k]); err == nil && len(cmsgs) > 0 {
		fds, err := unix.ParseUnixRights(&cmsgs[0])
		must(s.t, err)
		must(s.t, unix.Close(fds[0]))
	}
	if got := string(data[:n]); got != word {
		s.t.Errorf("the service manager hears %q, want %q", got, word)
	}
}

// TestNotifySocket: what the program says at its own socket reaches the service manager as READY and the pid to watch;
// start, and run in the background, return when it has.
func TestNotifySocket(t *testing.T) {
	b := newBundle(t, "")
	b.compile("say", sayReady)
	b.spec.Process.Args = []string{"/bin/say"}
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000} // the socket is for whoever the program is
	b.write()
	s := newSupervisor(t, b.dir)
	t.Setenv("NOTIFY_SOCKET", s.path)
	b.ok("create", "x")
	start := b.command("start", "x")
	must(t, start.Start())
	s.hears("READY=1\n")
	s.hears(fmt.Sprintf("MAINPID=%d\n", b.pid("x")))
	s.hears("BARRIER=1")
	must(t, start.Wait())
	b.ok("delete", "-f", "x")

	run := b.command("run", "-d", "x")
	must(t, run.Start())
	s.hears("READY=1\n")
	s.hears(fmt.Sprintf("MAINPID=%d\n", b.pid("x")))
	s.hears("BARRIER=1")
	must(t, run.Wait())
	b.ok("delete", "-f", "x")

	run = b.command("run", "x")
	must(t, run.Start())
	s.hears("READY=1\n")
	s.hears(fmt.Sprintf("MAINPID=%d\n", run.Process.Pid)) // which ends with the container, and with its status
	s.hears("BARRIER=1")
	b.ok("kill", "x", "KILL")
	if err := run.Wait(); run.ProcessState.ExitCode() != 137 {
		t.Error(err)
	}

	b.spec.Process.Args = []string{"/bin/busybox", "true"} // it ends without a word, and nobody waits for ever
	b.write()
	b.ok("run", "-d", "x")
	b.waitStatus("x", "stopped")
	b.ok("delete", "x")
}

// sayReady says READY and stays.
const sayReady = `
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_DGRAM, 0);
	strcpy(to.sun_path, getenv("NOTIFY_SOCKET"));
	if (sendto(s, "STATUS=well\nREADY=1\n", 20, 0, (void *)&to, sizeof to) != 20)
		return 1;
	for (;;)
		pause();
}
`

// compile makes a program of the root file system from its source in C.
func (b *bundleDir) compile(name, source string) {
	b.t.Helper()
	needCompiler(b.t)
	cmd := exec.Command("gcc", "-static", "-x", "c", "-o", filepath.Join(b.dir, "rootfs/bin", name), "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("gcc: %v\n%s", err, out)
	}
}

// TestKeyrings: the program has a session keyring of the container's name, or with --no-new-keyring the caller's.
func TestKeyrings(t *testing.T) {
	b := newBundle(t, "")
	b.compile("ring", `
#include <linux/keyctl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
	char text[256] = "";
	syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof text);
	puts(text);
}
`)
	b.spec.Process.Args = []string{"/bin/ring"}
	b.write()
	name := fmt.Sprintf("mini-runc-test-ring-%d", os.Getpid())
	done := make(chan struct{})
	go func() { // a thread of its own: the keyring is the thread's
		defer close(done)
		lockForGood()
		if _, err := unix.KeyctlJoinSessionKeyring(name); err != nil {
			t.Errorf("make a keyring: %v", err)
			return
		}
		for _, command := range [][]string{{"run", "x"}, {"run", "--no-new-keyring", "x"}} {
			ring := map[int]string{2: "_ses.x", 3: name}[len(command)]
			if out := b.ok(command...); !strings.HasSuffix(out, ";"+ring+"\n") {
				t.Errorf("%q: the session keyring is %q, want %q", command, out, ring)
			}
		}
	}()
	<-done
}

// TestNoPivot: the root is moved over the host's, and what lay there is out of reach all the same.
func TestNoPivot(t *testing.T) {
	b := newBundle(t, "busybox head -1 /proc/self/mountinfo; busybox ls -a /..; busybox ls / | busybox wc -l")
	b.write()
	pivoted := b.ok("run", "x")
	moved := b.ok("run", "--no-pivot", "x")
	_, first, _ := strings.Cut(pivoted, "\n")
	_, second, _ := strings.Cut(moved, "\n")
	want(t, second, first)
	// Without pivot_root(2) the host's mounts are still there, covered: the list of mounts says so.
	b.spec.Process.Args[2] = "busybox wc -l < /proc/self/mountinfo"
	b.write()
	if n, m := b.lines("run", "x"), b.lines("run", "--no-pivot", "x"); m < n {
		t.Errorf("%d mounts after a pivot, %d without", n, m)
	}
}

func (b *bundleDir) lines(args ...string) int {
	b.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(b.ok(args...)))
	must(b.t, err)
	return n
}

// TestExecOptions: each option of exec that changes the process, as the kernel shows it.
func TestExecOptions(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.spec.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
	b.write()
	b.ok("run", "-d", "x")
	status := func(field string, args ...string) string {
		t.Helper()
		out := b.ok(append(append([]string{"exec"}, args...), "x", "busybox", "grep", "^"+field+":", "/proc/self/status")...)
		return strings.Join(strings.Fields(out)[1:], " ")
	}
	want(t, status("NoNewPrivs"), "1")
	want(t, status("NoNewPrivs", "--no-new-privs=false"), "0")
	want(t, status("NoNewPrivs", "--no-new-privs"), "1")
	want(t, status("CapEff"), "0000000020000420")
	want(t, status("CapBnd", "--cap", "CAP_CHOWN", "-c", "CAP_FOWNER"), "0000000020000429")
	want(t, status("CapAmb", "--cap", "CAP_KILL"), "0000000000000020") // the specification has it inheritable
	want(t, status("CapAmb"), "0000000000000000")
	want(t, status("Uid", "--user", "12:34"), "12 12 12 12")
	want(t, status("Gid", "-u", "12:34"), "34 34 34 34")
	want(t, status("Groups", "-g", "5", "--additional-gids", "7"), "5 7")
	want(t, b.ok("exec", "--cwd", "/tmp", "x", "busybox", "pwd"), "/tmp\n")
	want(t, b.ok("exec", "-e", "A=1", "--env", "B=2", "x", "sh", "-c", "echo $A$B$TERM"), "12xterm\n")
	b.ok("delete", "-f", "x")
}

// TestXDGRuntimeDir: who is not the machine's root has the containers below $XDG_RUNTIME_DIR, which cleaners leave alone.
func TestXDGRuntimeDir(t *testing.T) {
	b := newBundle(t, "")
	b.write()
	dir := filepath.Join(b.dir, "xdg")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.Chown(dir, 1000, 1000))
	call := func(uid uint32) result {
		cmd := exec.Command(filepath.Join(programs, "mini-runc"), "list")
		cmd.Dir, cmd.Env = "/", append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		cmd.SysProcAttr = asUser(uid)
		return b.call(cmd)
	}
	want(t, call(1000).out, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n")
	info, err := os.Stat(filepath.Join(dir, "mini-runc"))
	must(t, err)
	if info.Mode() != os.ModeDir|os.ModeSticky|0o700 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, os.RemoveAll(filepath.Join(dir, "mini-runc")))
	call(0)
	if _, err := os.Stat(filepath.Join(dir, "mini-runc")); err == nil {
		t.Error("root's containers are there too")
	}
	must(t, os.Chown(dir, 0, 0))
	if r := call(1000); r.code != 1 || !strings.Contains(r.err, "$XDG_RUNTIME_DIR must be writable") {
		t.Errorf("%+v", r)
	}
}
