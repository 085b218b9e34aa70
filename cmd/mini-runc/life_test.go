package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/test/testbed"
)

// patience is how long a test waits for what will come, on however slow a machine.
var patience = testbed.Limit(time.Minute)

// waitText waits until a file has this text in it.
func waitText(t *testing.T, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(path)
		if strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has %q, not %q", path, b, text)
		}
	}
}

// waitStatus waits until a container has a status.
func (b *bundleDir) waitStatus(id, status string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); b.status(id) != status; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("container %s is %s, not %s", id, b.status(id), status)
		}
	}
}

// TestLifeCycle is that of runtime-spec, in single steps.
func TestLifeCycle(t *testing.T) {
	b := newBundle(t, "trap 'echo bye; exit 0' TERM; echo started; while :; do busybox sleep 0.01; done")
	b.spec.Annotations = map[string]string{"a": "b"}
	b.spec.Process.Args[0] = "/bin/sh"
	b.write()
	out := filepath.Join(b.dir, "output")
	create := b.command("create", "--pid-file", "pid", "one")
	f, err := os.Create(out)
	must(t, err)
	defer f.Close()
	create.Stdout, create.Stderr = f, f
	must(t, create.Run())

	b.fails("container with given ID already exists", "create", "one")
	var s engine.CommandState
	must(t, json.Unmarshal([]byte(b.ok("state", "one")), &s))
	pid, err := os.ReadFile(filepath.Join(b.dir, "pid"))
	must(t, err)
	if time.Since(s.Created) > time.Minute || strconv.Itoa(s.PID) != string(pid) {
		t.Errorf("created %s, pid %d, pid file %q", s.Created, s.PID, pid)
	}
	wanted := engine.CommandState{Version: "1.3.0", ID: "one", PID: s.PID, Status: "created", Bundle: b.dir, Rootfs: b.dir + "/rootfs", Created: s.Created, Annotations: b.spec.Annotations}
	if diff := cmp.Diff(wanted, s); diff != "" {
		t.Error(diff)
	}
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID))
	must(t, err)
	least := 7
	if pureV2() {
		least = 1
	}
	if n := strings.Count(string(group), b.spec.Linux.CgroupsPath); n < least {
		t.Errorf("create has put it into %d of its cgroups:\n%s", n, group)
	}

	b.ok("start", "one")
	want(t, b.status("one"), "running")
	b.fails("start container one: cannot start an already running container", "start", "one")
	b.fails("cannot delete container one that is not stopped: running", "delete", "one")
	b.checkList(s.PID)
	waitText(t, out, "started") // as PID 1 the shell gets no TERM before its trap
	b.ok("kill", "one", "USR2") // the shell has no handler: as PID 1 it does not care
	b.ok("kill", "one")
	b.waitStatus("one", "stopped")
	b.fails("kill container one: container not running", "kill", "one", "KILL")
	b.fails("exec in container one: cannot exec in a stopped container", "exec", "one", "true")
	b.ok("delete", "one")
	b.fails("container one: container does not exist", "delete", "one")
	b.ok("delete", "--force", "one")
	b.fails("container one: container does not exist", "state", "one")
	said, _ := os.ReadFile(out)
	want(t, string(said), "started\nbye\n")
}

func (b *bundleDir) checkList(pid int) {
	b.t.Helper()
	want(b.t, b.ok("list", "-q"), "one\n")
	var l []map[string]any
	must(b.t, json.Unmarshal([]byte(b.ok("list", "-f", "json")), &l))
	if len(l) != 1 || l[0]["status"] != "running" || l[0]["pid"] != float64(pid) || l[0]["owner"] != "root" {
		b.t.Errorf("list: %v", l)
	}
	f := strings.Fields(b.ok("list"))
	if len(f) != 12 || !cmp.Equal(f[:10], []string{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER", "one", strconv.Itoa(pid), "running", b.dir}) || f[11] != "root" {
		b.t.Errorf("table: %q", f)
	}
}

// TestNoProcess: a config.json without a process is enough for create, and not for start.
func TestNoProcess(t *testing.T) {
	b := newBundle(t, "")
	b.spec.Process = nil
	b.write()
	b.ok("create", "one")
	b.fails("start container one: its config.json has no process", "start", "one")
	want(t, b.status("one"), "created")
	b.ok("kill", "one", "KILL")
	b.waitStatus("one", "stopped")
	b.ok("delete", "one")
	b.fails("process: is missing", "run", "one")
}

// TestDelete: a container that was never started is deleted like one that has stopped, a running one by force.
func TestDelete(t *testing.T) {
	b := newBundle(t, "busybox sleep 100")
	b.write()
	b.ok("create", "never-started")
	b.ok("delete", "never-started")
	b.nothingLeft()
	b.ok("run", "-d", "running")
	b.ok("delete", "running", "--force")
	b.nothingLeft()
	want(t, b.ok("list", "-f", "json"), "null\n")
}

// TestRunForeground: the exit status is the program's, and nothing is left unless it shall be.
func TestRunForeground(t *testing.T) {
	b := newBundle(t, "echo out; echo err >&2; cat; exit 42")
	must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin/cat")))
	b.write()
	cmd := b.command("run", "--keep", "x")
	cmd.Stdin = strings.NewReader("input\n")
	r := b.call(cmd)
	if r != (result{"out\ninput\n", "err\n", 42}) {
		t.Errorf("run: %+v", r)
	}
	want(t, b.status("x"), "stopped")
	b.ok("delete", "x")
	r = b.mini("run", "x")
	if r.code != 42 {
		t.Errorf("run: %+v", r)
	}
	b.nothingLeft()

	b.spec.Process.Args = []string{"sh", "-c", "kill -9 $$; exec busybox sleep 100"}
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:] // without a PID namespace it can kill itself
	b.write()
	if r := b.mini("run", "x"); r.code != 128+9 {
		t.Errorf("run: %+v", r)
	}
}

// TestSignalsAreForwarded to the program of a run in the foreground, from its first moment on: the program is the one
// who sends it, and our run may not know yet that it has started.
func TestSignalsAreForwarded(t *testing.T) {
	b := newBundle(t, "trap 'exit 7' HUP; kill -HUP $PPID; while :; do busybox sleep 0.01; done")
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:] // without a PID namespace it sees its parent
	b.write()
	for range 10 {
		if r := b.mini("run", "x"); r.code != 7 || r.err != "" {
			t.Fatalf("exit status %d\n%s", r.code, r.err)
		}
	}
}

// record gives a directory that the container sees as /rec.
func (b *bundleDir) record() string {
	dir := filepath.Join(b.dir, "rec")
	must(b.t, os.MkdirAll(dir, 0o777))
	must(b.t, os.Chmod(dir, 0o777))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: []string{"bind"}})
	return dir
}

// TestKillAll: without a PID namespace the end of init ends nobody else; kill and delete find them by the cgroup.
func TestKillAll(t *testing.T) {
	for _, how := range []string{"kill", "kill --all USR1", "delete"} {
		t.Run(how, func(t *testing.T) {
			b := newBundle(t, "busybox sleep 100 & busybox sleep 100 & echo > /rec/ready; wait")
			rec := b.record()
			b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:]
			b.write()
			b.ok("run", "-d", "x")
			waitText(t, rec+"/ready", "\n")
			procs := func() int {
				text, _ := os.ReadFile(groupDir("pids") + b.spec.Linux.CgroupsPath + "/cgroup.procs")
				return len(strings.Fields(string(text)))
			}
			if n := procs(); n != 3 {
				t.Fatalf("%d processes", n)
			}
			switch how {
			case "kill":
				b.ok("kill", "x", "KILL")
			case "kill --all USR1":
				b.ok("kill", "--all", "x", "USR1")
			}
			for deadline := time.Now().Add(patience); how != "delete" && procs() > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d processes left", procs())
				}
			}
			b.ok("delete", "--force", "x")
		})
	}
}

// TestPreserveFDs: the program finds the caller's descriptors and no others.
func TestPreserveFDs(t *testing.T) {
	b := newBundle(t, "cat <&3; cat <&4; echo own >&4; ls /proc/self/fd")
	for _, name := range []string{"cat", "ls"} {
		must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin", name)))
	}
	b.write()
	var files []*os.File
	for _, text := range []string{"three\n", "four\n", "five\n"} {
		f, err := os.CreateTemp(b.dir, "fd-")
		must(t, err)
		defer f.Close()
		_, err = f.WriteString(text)
		must(t, err)
		_, err = f.Seek(0, 0)
		must(t, err)
		files = append(files, f)
	}
	cmd := b.command("run", "--preserve-fds", "2", "x")
	cmd.ExtraFiles = files
	r := b.call(cmd)
	if want := "three\nfour\n0\n1\n2\n3\n4\n5\n"; r.out != want || r.err != "" {
		t.Errorf("output %q, %q; want %q", r.out, r.err, want) // 5 is the directory that ls reads
	}
	if text, _ := os.ReadFile(files[1].Name()); string(text) != "four\nown\n" {
		t.Errorf("descriptor 4 got %q", text)
	}
}

// TestConsoleSocket: the terminal of a container in the background goes to whoever listens.
func TestConsoleSocket(t *testing.T) {
	b := newBundle(t, "read x; echo got $x; tty; stty size")
	for _, name := range []string{"tty", "stty"} {
		must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin", name)))
	}
	b.spec.Process.Terminal, b.spec.Process.ConsoleSize = true, &specs.Box{Height: 30, Width: 90}
	b.write()
	b.fails("cannot allocate tty if the call will detach without setting console socket", "create", "x")
	b.fails("cannot allocate tty if the call will detach without setting console socket", "run", "--detach", "x")
	l, err := net.Listen("unix", filepath.Join(b.dir, "console.sock"))
	must(t, err)
	defer l.Close()
	b.fails("cannot use console socket if the call will not detach or allocate tty", "run", "--console-socket", "console.sock", "x")
	b.ok("create", "--console-socket", "console.sock", "x")
	master := receiveMaster(t, l) // which waits in the socket's buffer
	defer master.Close()
	b.ok("start", "x")
	_, err = master.WriteString("hello\n")
	must(t, err)
	out := readAll(master)
	if !strings.Contains(out, "got hello\r\n/dev/pts/0\r\n30 90\r\n") {
		t.Errorf("terminal: %q", out)
	}
	b.waitStatus("x", "stopped")
	b.ok("delete", "x")
}

// receiveMaster takes the terminal that was sent to a socket.
func receiveMaster(t *testing.T, l net.Listener) *os.File {
	t.Helper()
	conn, err := l.Accept()
	must(t, err)
	defer conn.Close()
	data, oob := make([]byte, 64), make([]byte, 64)
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(data, oob)
	must(t, err)
	cmsgs, err := unix.ParseSocketControlMessage(oob[:n])
	must(t, err)
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	must(t, err)
	return os.NewFile(uintptr(fds[0]), "master")
}

// readAll reads a terminal until its last slave is closed.
func readAll(f *os.File) string {
	var text strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			return text.String()
		}
	}
}
