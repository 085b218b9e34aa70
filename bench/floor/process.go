package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const podNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// chrooted runs true on the overlay with as little as Go's fork and exec can do.
// The mount must be somewhere for that, and is taken away again.
func (n *node) chrooted(root, netns int) error {
	at := filepath.Join(n.dir, "root")
	clone, err := unix.OpenTree(root, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone overlay: %w", err)
	}
	defer unix.Close(clone)
	if err := unix.MoveMount(clone, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach overlay: %w", err)
	}
	cmd := exec.Command("/bin/true")
	cmd.Path, cmd.Dir = "/bin/true", "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: podNamespaces, Chroot: at}
	err = inNetns(netns, n.netns, cmd.Run)
	if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach overlay: %w", err)
	}
	return err
}

// childArg makes this program the init of a pod: the overlay is its descriptor 3,
// the other arguments are cgroups to join.
const childArg = "floor-child"

func (n *node) pivoted(root, netns int, cgroups []string) error {
	cmd := exec.Command("/proc/self/exe", append([]string{childArg}, cgroups...)...)
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(root)), "overlay")}
	defer cmd.ExtraFiles[0].Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: podNamespaces}
	var words strings.Builder
	cmd.Stderr = &words
	if err := inNetns(netns, n.netns, cmd.Run); err != nil {
		return fmt.Errorf("run Go init: %w: %s", err, &words)
	}
	return nil
}

func dup(fd int) int {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return d
}

// child never returns.
func child() {
	err := enter(3, os.Args[2:])
	if err == nil {
		err = unix.Exec("/bin/true", []string{"true"}, nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func enter(root int, cgroups []string) error {
	for _, c := range cgroups {
		f := "tasks" // v1; v2 has no such file
		if _, err := os.Stat(filepath.Join(c, f)); err != nil {
			f = "cgroup.procs"
		}
		if err := os.WriteFile(filepath.Join(c, f), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	// The overlay covers /proc and all else; nothing below needs them.
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/mnt", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach overlay: %w", err)
	}
	if err := unix.Chdir("/mnt"); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}
