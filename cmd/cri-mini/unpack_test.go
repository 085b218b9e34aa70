package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// filtered says to this test that it is the child which loads the filter.
const filtered = "CRI_MINI_TEST_FILTERED"

// The filter of the unpacking process refuses what a process that was taken over would want, and lets the Go runtime
// and file work pass: those are seen at work by every pull of test/api.
func TestUnpackFilter(t *testing.T) {
	if os.Getenv(filtered) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUnpackFilter$", "-test.v")
		cmd.Env = append(os.Environ(), filtered+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("in the filtered process: %v\n%s", err, out)
		}
		return
	}
	bpf, err := unpackFilter()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := linux.LoadSeccomp(bpf, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
		t.Fatal(err)
	}
	_, _, ptrace := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0, 0, 0, 0)
	_, _, bpfCall := unix.RawSyscall(unix.SYS_BPF, 0, 0, 0)
	_, _, fork := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_NEWUSER, 0, 0, 0, 0, 0)
	_, socket := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	for name, err := range map[string]error{
		"socket": socket, "unshare": unix.Unshare(unix.CLONE_NEWNS), "setns": unix.Setns(0, 0), "chroot": unix.Chroot("/"),
		"mount": unix.Mount("none", "/", "tmpfs", 0, ""), "execve": syscall.Exec("/bin/true", []string{"true"}, nil),
		"kill": unix.Kill(1, 0), "ptrace": ptrace, "bpf": bpfCall, "clone of a process": fork,
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v, want %v", name, err, unix.EPERM)
		}
	}
	var threads sync.WaitGroup
	for range 20 {
		threads.Go(func() {
			runtime.LockOSThread() // ends the thread with the goroutine
			if _, err := os.Stat("/"); err != nil {
				t.Error(err)
			}
		})
	}
	threads.Wait()
}
