package linux

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the sealed copies of this test binary play the program.
func TestMain(m *testing.M) {
	if os.Getenv("LINUX_TEST_CHILD") != "" {
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin) // until the parent closes it
		os.Exit(37)
	}
	os.Exit(m.Run())
}

func TestSharedPage(t *testing.T) {
	page, err := NewSharedPage("test")
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	fd, err := unix.FcntlInt(page.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := MapSharedPage(os.NewFile(uintptr(fd), "peer"))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	peer.Store32(12, 0xfeedbeef)
	peer.Store64(16, 1<<40)
	if got := page.Load32(12); got != 0xfeedbeef {
		t.Errorf("word at 12 = %#x", got)
	}
	if got := page.Add64(16, 2); got != 1<<40+2 || peer.Load64(16) != got {
		t.Errorf("double word at 16 = %#x, peer has %#x", got, peer.Load64(16))
	}
	if err := peer.File().Truncate(0); err == nil {
		t.Error("a peer can truncate the page, which would kill us by SIGBUS")
	}
	for _, offset := range []int{-4, 2, PageSize} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("offset %d was taken", offset)
				}
			}()
			page.Load32(offset)
		}()
	}
	if err := page.Close(); err != nil {
		t.Fatal(err)
	}
	if err := page.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestPidfdInfoTellsExitAfterReap(t *testing.T) {
	cmd, stdin := startChild(t, os.Args[0])
	pidfd, err := PidfdOpen(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	fd := int(pidfd.Fd())
	info, err := PidfdInfo(fd)
	if errors.Is(err, ErrNoExitInfo) {
		t.Skip(err)
	}
	if err != nil || info.PID != cmd.Process.Pid || info.PPID != os.Getpid() || info.Exited {
		t.Fatalf("running child: %+v, %v", info, err)
	}
	stdin.Close()
	cmd.Wait()
	info, err = PidfdInfo(fd)
	if errors.Is(err, ErrNoExitInfo) {
		t.Skip(err)
	}
	if err != nil || !info.Exited || info.Status.ExitStatus() != 37 {
		t.Errorf("reaped child: %+v status %d, %v", info, info.Status.ExitStatus(), err)
	}
	if err := PidfdKill(fd, unix.SIGKILL); err != nil {
		t.Errorf("signal to a process that is gone: %v", err)
	}
}

// A program that runs from a seal must not be writable through /proc/pid/exe,
// neither while it runs nor by a descriptor that was kept until it ended.
func TestSealStopsWriters(t *testing.T) {
	for _, test := range []struct {
		name string
		seal func(string) (*os.File, error)
	}{
		{SealOverlay, sealOverlay},
		{SealMemfd, sealMemfd},
	} {
		t.Run(test.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, as the attacker in the container has")
			}
			sealed, err := test.seal(os.Args[0])
			if err != nil {
				t.Fatal(err)
			}
			defer sealed.Close()
			cmd, stdin := startChild(t, fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()))
			exe := fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)
			held, err := os.OpenFile(exe, unix.O_PATH, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			mustNotWrite(t, exe)
			stdin.Close()
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 37 {
				t.Fatalf("program from the seal: %v", err)
			}
			mustNotWrite(t, fmt.Sprintf("/proc/self/fd/%d", held.Fd()))
			mustNotWrite(t, fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()))
		})
	}
}

func TestSealSelf(t *testing.T) {
	sealed, how, err := SealSelf()
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	t.Logf("sealed by %s", how)
	cmd, stdin := startChild(t, fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()))
	stdin.Close()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 37 {
		t.Errorf("exit code %d", code)
	}
}

func TestSealNamesTheMissingFile(t *testing.T) {
	_, _, err := SealFile("/nonexistent/program")
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/program") {
		t.Errorf("error %v", err)
	}
}

func TestCapabilities(t *testing.T) {
	bounding, err := Bounding()
	if err != nil {
		t.Fatal(err)
	}
	effective, permitted, _, err := Capabilities()
	if err != nil {
		t.Fatal(err)
	}
	if effective&^permitted != 0 {
		t.Errorf("effective %#x is not within permitted %#x", effective, permitted)
	}
	if os.Geteuid() == 0 && bounding == 0 {
		t.Error("root with an empty bounding set")
	}
	if AmbientHas(unix.CAP_SYS_ADMIN) {
		t.Error("ambient CAP_SYS_ADMIN in a test")
	}
	if err := AmbientClear(); err != nil {
		t.Error(err)
	}
}

// startChild runs this test binary from path as the child and waits until its
// main function has begun.
func startChild(t *testing.T, path string) (*exec.Cmd, io.Closer) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "LINUX_TEST_CHILD=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	return cmd, stdin
}

// mustNotWrite tries every way to change a file that an attacker has.
func mustNotWrite(t *testing.T, path string) {
	t.Helper()
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC, unix.O_WRONLY | unix.O_APPEND} {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if n, err := unix.Write(fd, []byte("#!/bin/evil")); err == nil {
			t.Errorf("wrote %d bytes to %s with flags %#x", n, path, flags)
		}
		if err := unix.Ftruncate(fd, 0); err == nil {
			t.Errorf("truncated %s", path)
		}
		unix.Close(fd)
	}
	if err := unix.Truncate(path, 0); err == nil {
		t.Errorf("truncated %s by path", path)
	}
}

func BenchmarkSealFile(b *testing.B) {
	for b.Loop() {
		file, _, err := SealFile(os.Args[0])
		if err != nil {
			b.Fatal(err)
		}
		file.Close()
	}
}
