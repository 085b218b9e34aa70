package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attackEnv makes the test program an attacker: what a container's program does that wants out. It runs inside, where a
// shell cannot do enough.
const attackEnv = "MINI_RUNC_TEST_ATTACK"

// attacks are what the attacker can do. Each prints a line that begins with REACHED for everything that it should not have.
var attacks = map[string]func(){"binary": attackBinary, "process": attackProcess}

// withAttacker puts the test program into a bundle as /attacker, with the host's libraries.
func (b *bundleDir) withAttacker() {
	b.t.Helper()
	self, err := os.Executable()
	must(b.t, err)
	ro := func(source, dest string) {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: dest, Options: []string{"rbind", "ro"}})
	}
	ro(self, "/attacker")
	must(b.t, os.WriteFile(filepath.Join(b.dir, "rootfs/attacker"), nil, 0o755))
	for _, dir := range []string{"lib", "lib64", "usr/lib"} {
		if real, err := filepath.EvalSymlinks("/" + dir); err == nil {
			must(b.t, os.MkdirAll(filepath.Join(b.dir, "rootfs", dir), 0o755))
			ro(real, "/"+dir)
		}
	}
}

// attacker is one at work in container x.
type attacker struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.Closer // closing it is the sign to end
	out *bufio.Reader
}

func (b *bundleDir) attack(name string) *attacker {
	b.t.Helper()
	cmd := b.command("exec", "--env", attackEnv+"="+name, "x", "/attacker")
	in, err := cmd.StdinPipe()
	must(b.t, err)
	out, err := cmd.StdoutPipe()
	must(b.t, err)
	cmd.Stderr = os.Stderr
	must(b.t, cmd.Start())
	return &attacker{b.t, cmd, in, bufio.NewReader(out)}
}

// until reads what the attacker says up to a line that begins with a word, and gives that line. What it has reached is an
// error of the test.
func (a *attacker) until(word string) string {
	a.t.Helper()
	for {
		line, err := a.out.ReadString('\n')
		line = strings.TrimSuffix(line, "\n")
		switch {
		case err != nil:
			a.t.Fatalf("the attacker has ended without %q: %v", word, err)
		case strings.HasPrefix(line, "REACHED"):
			a.t.Error(line)
		case strings.HasPrefix(line, word):
			return line
		}
	}
}

// end tells it to end, and waits for that.
func (a *attacker) end() {
	a.t.Helper()
	a.in.Close()
	a.until("done")
	if err := a.cmd.Wait(); err != nil {
		a.t.Errorf("attacker: %v", err)
	}
}

// others gives the processes that the attacker sees, but for itself and PID 1.
func others() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != 1 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// attackBinary waits for a process whose program is none of the container's and tries to write to it: while it runs, when
// the kernel would refuse it anyway, and through the descriptor that is left when it has ended (CVE-2019-5736).
func attackBinary() {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(time.Millisecond) {
		for _, pid := range others() {
			path := fmt.Sprintf("/proc/%d/exe", pid)
			link, err := os.Readlink(path)
			if err != nil || strings.HasSuffix(link, "/busybox") || strings.HasSuffix(link, "/attacker") {
				continue
			}
			fd, err := unix.Open(path, unix.O_RDONLY, 0)
			if err != nil {
				continue
			}
			fmt.Printf("holds %s\n", link)
			writeBinary(path)
			held := fmt.Sprintf("/proc/self/fd/%d", fd)
			writeBinary(held)
			fmt.Println("waits")
			for unix.Kill(pid, 0) == nil {
				time.Sleep(time.Millisecond)
			}
			writeBinary(held)
			_ = unix.Mount("", held, "", unix.MS_REMOUNT|unix.MS_BIND, "")
			writeBinary(held)
			fmt.Println("done")
			return
		}
	}
	fmt.Println("found nobody")
}

func writeBinary(path string) {
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND, unix.O_WRONLY | unix.O_TRUNC} {
		fd, err := unix.Open(path, flags, 0)
		if err != nil {
			continue
		}
		if n, err := unix.Write(fd, []byte("#!/attacker\n")); err == nil {
			fmt.Printf("REACHED %s with flags %#x: %d bytes written\n", path, flags, n)
		}
		if err := unix.Ftruncate(fd, 0); err == nil {
			fmt.Printf("REACHED %s: truncated\n", path)
		}
	}
	if err := unix.Truncate(path, 0); err == nil {
		fmt.Printf("REACHED %s: truncated by its path\n", path)
	}
}

// attackProcess tries to get at the processes that are on their way into the container, as long as its standard input is
// open: through /proc, by ptrace, by their descriptors (CVE-2016-9962). They have the helper's name.
func attackProcess() {
	runtime.LockOSThread() // a tracer is a thread
	fmt.Println("ready")
	seen := map[int]bool{}
	for gone := false; !gone; {
		p := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
		n, _ := unix.Poll(p, 0)
		gone = n > 0
		for _, pid := range others() {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if string(comm) == "cri-mini-init\n" {
				seen[pid] = true
				lookInto(pid)
			}
		}
	}
	fmt.Printf("seen %d\n", len(seen))
	fmt.Println("done")
}

func lookInto(pid int) {
	reached := func(what string) {
		// It may have become the program meanwhile, which the attacker may look into, or be ending: its memory is gone then.
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if string(comm) == "cri-mini-init\n" && (err != nil || len(maps) > 0) {
			fmt.Printf("REACHED %s of process %d\n", what, pid)
		}
	}
	for _, file := range []string{"mem", "environ", "maps", "exe", "root/.", "cwd/.", "ns/mnt", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8"} {
		if fd, err := unix.Open(fmt.Sprintf("/proc/%d/%s", pid, file), unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			reached(file)
			unix.Close(fd)
		}
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		for n := range 10 {
			if got, err := unix.PidfdGetfd(fd, n, 0); err == nil {
				reached(fmt.Sprintf("descriptor %d", n))
				unix.Close(got)
			}
		}
		unix.Close(fd)
	}
	if unix.PtraceSeize(pid) == nil {
		reached("memory by ptrace")
		// A program of the container's own can be traced, and ends for its parent only when its tracer has let it go.
		_ = unix.PtraceInterrupt(pid)
		_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
		_ = unix.PtraceDetach(pid)
	}
}

// swapping exchanges two names as fast as it can until it is stopped: what another container does in a volume that it shares.
func swapping(t *testing.T, a, b string) (stop func()) {
	t.Helper()
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
					t.Errorf("exchange %s and %s: %v", a, b, err)
					return
				}
			}
		}
	}()
	return func() { close(quit); <-ended }
}
