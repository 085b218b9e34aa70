package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// running is a bundle with a container "x" that runs until it is deleted.
func running(t testing.TB, change func(*specs.Spec)) *bundleDir {
	b := newBundle(t, "exec busybox sleep 1000")
	for _, name := range []string{"cat", "id", "pwd", "tty", "stty", "grep", "sleep", "ls", "ps"} {
		must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin", name)))
	}
	if change != nil {
		change(b.spec)
	}
	b.write()
	b.ok("run", "--detach", "x")
	t.Cleanup(func() { b.ok("delete", "--force", "x") })
	return b
}

func TestExec(t *testing.T) {
	b := running(t, nil)
	for _, tc := range []struct {
		name string
		args []string
		out  string
	}{
		{"command", []string{"x", "sh", "-c", "echo $0 $1 $$", "a b", "-c"}, "a b -c "},
		{"cwd", []string{"--cwd", "/proc/sys", "x", "pwd"}, "/proc/sys\n"},
		{"env", []string{"-e", "A=1", "--env", "B=2", "--env", "A=3", "x", "sh", "-c", "echo $A$B$TERM"}, "32xterm\n"},
		{"user", []string{"-u", "1000:50", "-g", "7", "--additional-gids", "8", "x", "id"}, "uid=1000 gid=50 groups=7,8\n"},
		{"user without rights", []string{"--user", "1000", "x", "grep", "CapEff", "/proc/self/status"}, "CapEff:\t0000000000000000\n"},
		{"cap", []string{"--cap", "CAP_CHOWN", "x", "grep", "CapEff", "/proc/self/status"}, "CapEff:\t0000000020000421\n"},
		{"cgroup", []string{"x", "sh", "-c", "grep -c " + b.spec.Linux.CgroupsPath + "$ /proc/self/cgroup"}, ""},
		{"session", []string{"x", "sh", "-c", "echo $(cut -d' ' -f6 /proc/$$/stat)"}, ""},
		{"descriptors", []string{"x", "ls", "/proc/self/fd"}, "0\n1\n2\n3\n"},
		{"flags of the command", []string{"x", "echo", "--cwd", "-d"}, "--cwd -d\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.args[1] == "echo" {
				tc.args = append([]string{"x", "/bin/busybox"}, tc.args[1:]...)
			}
			out := b.ok(append([]string{"exec"}, tc.args...)...)
			if !strings.HasPrefix(out, tc.out) {
				t.Errorf("output %q, want %q", out, tc.out)
			}
		})
	}
	r := b.mini("exec", "x", "sh", "-c", "exit 7")
	if r.code != 7 || r.err != "" {
		t.Errorf("%+v", r)
	}
	r = b.mini("exec", "x", "nothing")
	if r.code != execFailed || !strings.Contains(r.err, "exec nothing: executable file not found in $PATH: no such file or directory") {
		t.Errorf("%+v", r)
	}
	b.fails("container y: container does not exist", "exec", "y", "true")
	b.fails(`--user: bad uid: "root" is not UID[:GID]`, "exec", "--user", "root", "x", "true")
	b.fails("exec args cannot be empty", "exec", "x")
}

// TestExecProcess runs a process that a file describes, as containerd does.
func TestExecProcess(t *testing.T) {
	b := running(t, nil)
	p := specs.Process{Args: []string{"sh", "-c", "pwd; busybox env; grep NoNewPrivs /proc/self/status"}, Cwd: "/tmp", Env: []string{"PATH=/bin", "A=b"}, NoNewPrivileges: true}
	text, err := json.Marshal(p)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, "process.json"), text, 0o600))
	out := b.ok("exec", "--process", "process.json", "x")
	for _, line := range []string{"/tmp\n", "A=b\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("output %q lacks %q", out, line)
		}
	}
	must(t, os.WriteFile(filepath.Join(b.dir, "process.json"), []byte("{\"args\": \"sh\"}"), 0o600))
	b.fails("process.json:1:13: args is a JSON string at byte 13, want a list", "exec", "--process", "process.json", "x")
}

// TestExecDetached: the call returns, the process runs on and its pid is known.
func TestExecDetached(t *testing.T) {
	b := running(t, nil)
	b.ok("exec", "--detach", "--pid-file", "pid", "x", "sleep", "500")
	pid, err := os.ReadFile(filepath.Join(b.dir, "pid"))
	must(t, err)
	text, err := os.ReadFile("/proc/" + string(pid) + "/cmdline")
	if err != nil || string(text) != "sleep\x00500\x00" {
		t.Errorf("process %s is %q, %v", pid, text, err)
	}
	out := b.ok("exec", "x", "ps")
	if !strings.Contains(out, "sleep 500") {
		t.Errorf("ps: %s", out)
	}
}

// TestExecTerminal: a terminal of its own, with the size of ours from the start.
func TestExecTerminal(t *testing.T) {
	b := running(t, nil)
	master, slave := openPTY(t)
	defer master.Close()
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 11, Col: 55}))
	cmd := b.command("exec", "-t", "x", "sh", "-c", "stty size; tty; ls /proc/self/fd; exit 5")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	p := sitDown(t, master)
	p.expect("11 55\r\n/dev/pts/0\r\n0")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit status %d", code)
	}
	slave.Close()
}

// TestExecTerminalOutput: what a short program prints on its terminal arrives in full, also without one of ours.
func TestExecTerminalOutput(t *testing.T) {
	b := running(t, nil)
	const lines = 2000
	out := b.ok("exec", "-t", "x", "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done", lines))
	if n := strings.Count(out, "\r\n"); n != lines || !strings.HasSuffix(out, fmt.Sprintf("line %d\r\n", lines-1)) {
		t.Errorf("%d lines, want %d; the last is %q", n, lines, out[max(0, len(out)-20):])
	}
}

// TestExecInUserNamespace enters all namespaces with the rights that the owner has there.
func TestExecInUserNamespace(t *testing.T) {
	b := running(t, withUserNamespace)
	want(t, b.ok("exec", "x", "sh", "-c", "id -u; cat /proc/self/uid_map"), "0\n         0     100000      65536\n")
	want(t, b.ok("exec", "-u", "5", "x", "id", "-u"), "5\n")
}

// TestExecRace: a container that ends while somebody enters it is an error, never a hang.
func TestExecRace(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 0.05")
	b.write()
	for i := range 10 {
		b.ok("run", "-d", "x")
		time.Sleep(time.Duration(40+i*2) * time.Millisecond)
		r := b.mini("exec", "x", "busybox", "true")
		if r.code != 0 && r.code != execFailed && r.code != 137 {
			t.Errorf("%+v", r)
		}
		b.ok("delete", "--force", "x")
	}
}
