package worker

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// capabilities that unpacking needs: owners, modes beside them, setgid bits, devices, file capabilities, and for the
// trusted extended attributes that overlayfs reads CAP_SYS_ADMIN, most of whose calls the filter refuses.
const capabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER |
	1<<unix.CAP_FSETID | 1<<unix.CAP_MKNOD | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SYS_ADMIN

// self is the program to execute again.
const self = "/proc/self/exe"

// oomScore makes the kernel kill a worker rather than the daemon or a container.
const oomScore = "800"

// confine is the process's first stage: what holds for a thread and what it executes is set on one thread, which then
// executes the second stage. Go's other threads would otherwise stay as they are.
func confine(dir string) error {
	runtime.LockOSThread()
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0) // no more than a preference
	if err := linux.DropBounding(capabilities); err != nil && !errors.Is(err, unix.EPERM) {
		return err // EPERM: no CAP_SETPCAP, so the daemon itself has little
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	readable, err := programFiles()
	if err != nil {
		return err
	}
	if _, err := linux.Landlock(dir, readable...); err != nil {
		return err
	}
	return fmt.Errorf("execute: %w", syscall.Exec(self, []string{Name, dir, "confined"}, os.Environ()))
}

// libraries is where the files of a program are that is not linked statically, as a distribution may build it.
var libraries = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"}

// programFiles are what must be read to execute this program again.
func programFiles() ([]string, error) {
	f, err := elf.Open(self)
	if err != nil {
		return nil, fmt.Errorf("read own program: %w", err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return append([]string{self}, libraries...), nil
	}
	return []string{self}, nil
}

// maxFilter bounds a seccomp filter in bytes: 4096 instructions (BPF_MAXINSNS).
const maxFilter = 4096 * 8

// filter is the second stage's first act: the daemon sends the filter, and it is loaded for all threads.
func filter() error {
	unix.CloseOnExec(controlFD)
	bpf := make([]byte, maxFilter)
	n, err := unix.Read(controlFD, bpf)
	if err != nil {
		return fmt.Errorf("read filter: %w", err)
	}
	_, err = linux.LoadSeccomp(bpf[:n], unix.SECCOMP_FILTER_FLAG_TSYNC)
	return err
}

// Syscalls are what the filter must let pass, by name; it refuses all others, with EPERM. clone(2) is for threads only.
var Syscalls = []string{
	// files
	"read", "readv", "pread64", "write", "writev", "pwrite64", "close", "close_range", "lseek", "fstat", "newfstatat", "statx", "fstatfs", "fcntl",
	"openat", "openat2", "mkdirat", "mknodat", "symlinkat", "linkat", "unlinkat", "renameat", "renameat2", "readlinkat", "getdents64",
	"ftruncate", "fallocate", "chmod", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "lchown", "utimensat",
	"setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr", "copy_file_range", "splice", "dup", "dup3", "pipe2",
	// requests
	"recvmsg", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "eventfd2",
	// memory, threads, signals, time: the Go runtime and glibc
	"mmap", "munmap", "mprotect", "madvise", "mremap", "brk", "mincore",
	"futex", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "gettid", "getpid", "exit", "exit_group", "tgkill", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "getrandom",
	"prlimit64", "getrlimit", "getrusage", "uname", "getuid", "geteuid", "getgid", "getegid",
}
