package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// private is the mount namespace that holds the pods' pins and shm mounts. It has the run directory and
// /proc and nothing else, so that it keeps no file system of the host busy and the host's mount table does not
// grow with the pods. One locked thread lives in it; the namespace itself is pinned by a bind in the run
// directory, so that the next daemon finds it.
type private struct {
	calls  chan func()
	closed chan struct{}
	dir    string
}

const privatePin = "private"

// openPrivate enters the pinned namespace or makes it.
func openPrivate(runDir string) (*private, error) {
	p := &private{calls: make(chan func()), closed: make(chan struct{}), dir: runDir}
	pin := filepath.Join(runDir, privatePin)
	ready := make(chan error, 1)
	linux.GoThread(func() {
		err := enterPrivate(runDir, pin)
		ready <- err
		if err != nil {
			return
		}
		p.serve()
	})
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("open private mount namespace: %w", err)
	}
	return p, nil
}

func enterPrivate(runDir, pin string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare fs: %w", err)
	}
	if fd, err := unix.Open(pin, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNS)
		_ = unix.Close(fd)
		if err == nil {
			return nil
		}
	}
	host, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own mount namespace: %w", err)
	}
	defer unix.Close(host)
	return onSomeCPU(func() error { return makePrivate(runDir, pin, host) })
}

// makePrivate makes the namespace, pins it in the host's, and enters it.
func makePrivate(runDir, pin string, host int) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := makePrivateRoot(runDir); err != nil {
		return err
	}
	own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open private mount namespace: %w", err)
	}
	defer unix.Close(own)
	// A mount namespace can be pinned only in an older one: go back, bind, return.
	if err := unix.Setns(host, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("return to the host's mount namespace: %w", err)
	}
	if err := isolate(pin); err != nil {
		return err
	}
	if err := bindOver(own, pin); err != nil {
		return err
	}
	return unix.Setns(own, unix.CLONE_NEWNS)
}

// isolate puts a private mount of the file itself below a pin. A mount namespace may be bound nowhere from where the bind
// would propagate: the kernel copies none (fs/namespace.c, CL_COPY_MNT_NS_FILE) and says EINVAL. A run directory below a
// shared /run has copies wherever systemd has given a service a mount namespace of its own.
func isolate(pin string) error {
	if err := unpin(pin); err != nil {
		return err
	}
	if err := makePin(pin); err != nil {
		return err
	}
	if err := unix.Mount(pin, pin, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind pin %s: %w", pin, err)
	}
	if err := unix.Mount("", pin, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make pin %s private: %w", pin, err)
	}
	return nil
}

// onSomeCPU runs f, which makes and pins a mount namespace, again on each CPU while the kernel says EINVAL. Which of
// two mount namespaces is older is told by their ids, and since Linux 6.18 each CPU gives ids out of a batch of its
// own (kernel/nstree.c): where the daemon's own namespace is not the first one of the machine, a newer one may have the
// smaller id. On the CPU that has made ours it has not. The caller's thread is locked.
func onSomeCPU(f func() error) error {
	err := f()
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	var all, one unix.CPUSet
	if e := unix.SchedGetaffinity(0, &all); e != nil {
		return errors.Join(err, e)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	for cpu, left := 0, all.Count(); left > 0 && errors.Is(err, unix.EINVAL); cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		left--
		one.Zero()
		one.Set(cpu)
		if unix.SchedSetaffinity(0, &one) == nil {
			err = f()
		}
	}
	return err
}

// makePrivateRoot replaces the copied mount tree by a small tmpfs with the run directory and /proc.
func makePrivateRoot(runDir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	run, err := unix.OpenTree(unix.AT_FDCWD, runDir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("clone %s: %w", runDir, err)
	}
	defer unix.Close(run)
	proc, err := unix.OpenTree(unix.AT_FDCWD, "/proc", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("clone /proc: %w", err)
	}
	defer unix.Close(proc)
	if err := unix.Mount("tmpfs", runDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755,size=1m"); err != nil {
		return fmt.Errorf("mount private root: %w", err)
	}
	if err := unix.Chdir(runDir); err != nil {
		return err
	}
	for path, tree := range map[string]int{"." + runDir: run, "./proc": proc} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("attach %s: %w", path, err)
		}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to private root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the host's tree: %w", err)
	}
	return unix.Chdir("/")
}

func (p *private) serve() {
	for {
		select {
		case f := <-p.calls:
			f()
		case <-p.closed:
			return
		}
	}
}

// errClosing is the error of what is asked for while the daemon ends: some calls outlive their callers.
var errClosing = errors.New("the daemon is ending")

// do runs f on the thread in the namespace.
func (p *private) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case p.calls <- func() { done <- f() }:
		return <-done
	case <-p.closed:
		return errClosing
	}
}

// close ends the thread; the namespace stays pinned.
func (p *private) close() { close(p.closed) }

// bindFD binds what a descriptor refers to onto a file, which is made if missing. An older bind is replaced.
func bindFD(fd int, path string) error {
	if err := makePin(path); err != nil {
		return err
	}
	_ = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	return bindOver(fd, path)
}

func makePin(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("make pin: %w", err)
	}
	return f.Close()
}

func bindOver(fd int, path string) error {
	if err := unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", fd), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin namespace on %s: %w", path, err)
	}
	return nil
}

// unpin undoes bindFD or a mount; a path without a mount is no error.
func unpin(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
