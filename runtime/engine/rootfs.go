package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// overlayOptions are always set. volatile spares the sync of the whole upper file system at umount (34–58 ms):
// a writable layer does not outlive its container, and the kernel's check for a layer that was not closed
// cleanly must not apply: see forgetMount. metacopy, redirect_dir and xino stay off because
// layers come from elsewhere and must not be able to point out of themselves.
var overlayOptions = []string{"index=off", "metacopy=off", "redirect_dir=nofollow", "xino=off"}

// makeOverlay makes a container's root file system as a detached mount, in the way that the plan says.
func makeOverlay(op *plan.Op, userns int) (int, error) {
	if err := forgetMount(op.Str[1]); err != nil {
		return -1, err
	}
	if op.Num[0] == plan.OverlayMount || userns >= 0 && op.Num[0] == plan.OverlayLowerPlus {
		return overlayInNamespace(op, userns)
	}
	var layers []int
	defer func() { closeAll(layers) }()
	if op.Num[0] == plan.OverlayLayerFDs {
		for _, dir := range op.List[0] {
			fd, err := openLayer(dir, userns)
			if err != nil {
				return -1, err
			}
			layers = append(layers, fd)
		}
	}
	return overlayByFsopen(op, op.List[0], layers)
}

// forgetMount removes the mark by which a volatile overlay refuses to be mounted a second time (EINVAL), as it is when
// a start is made again: what the first one lost in a crash went with the whole run directory.
func forgetMount(work string) error {
	if work == "" {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
		return fmt.Errorf("clear overlay work directory: %w", err)
	}
	return nil
}

// openLayer opens a layer directory, idmapped when there is a user namespace.
func openLayer(dir string, userns int) (int, error) {
	if userns < 0 {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("open layer %s: %w", dir, err)
		}
		return fd, nil
	}
	fd, err := cloneTree(dir, 0, plan.PropPrivate, userns)
	if err != nil {
		return -1, fmt.Errorf("clone layer %s: %w", dir, err)
	}
	return fd, nil
}

// overlayByFsopen configures the overlay by fsconfig(2): layers by descriptor where there are any, else by path.
func overlayByFsopen(op *plan.Op, lower []string, layers []int) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system context: %w", err)
	}
	defer unix.Close(fs)
	for i, dir := range lower {
		if layers != nil {
			err = unix.FsconfigSetFd(fs, "lowerdir+", layers[i])
		} else {
			err = unix.FsconfigSetString(fs, "lowerdir+", dir)
		}
		if err != nil {
			return -1, fmt.Errorf("add layer %s: %w", dir, contextError(fs, err))
		}
	}
	set := append([]string(nil), overlayOptions...)
	if op.Str[0] != "" {
		set = append(set, "upperdir="+op.Str[0], "workdir="+op.Str[1], "volatile")
	}
	for _, kv := range append(set, op.List[1]...) {
		key, value, isString := strings.Cut(kv, "=")
		if isString {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, fmt.Errorf("set %s: %w", kv, contextError(fs, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make overlay: %w", contextError(fs, err))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(op.Num[1]))
	if err != nil {
		return -1, fmt.Errorf("mount overlay: %w", contextError(fs, err))
	}
	return writable(fd, op)
}

// contextError adds what the kernel says about a file system context to its errno.
func contextError(fs int, err error) error {
	var b [512]byte
	n, readErr := unix.Read(fs, b[:])
	if readErr != nil || n <= 2 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(b[2:n])))
}

// writable makes sure that an overlay with an upper directory can be written: some mistakes give a read-only
// one without an error.
func writable(fd int, op *plan.Op) (int, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("stat overlay: %w", err)
	}
	if op.Str[0] != "" && op.Num[1]&plan.AttrRdonly == 0 && st.Flags&unix.ST_RDONLY != 0 {
		_ = unix.Close(fd)
		return -1, errors.New("the overlay came up read-only: the file system of its upper directory cannot carry one")
	}
	return fd, nil
}

// overlayInNamespace is the way of kernels before 6.13 (idmapped layers) and 6.7 (no lowerdir+): in a mount
// namespace of its own the layers get one-letter names, so that they fit into mount(2)'s page and into
// fsconfig's 256 bytes, and the mount is taken out as a detached clone.
func overlayInNamespace(op *plan.Op, userns int) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	linux.GoThread(func() {
		fd, err := overlayOnThread(op, userns)
		done <- result{fd, err}
	})
	r := <-done
	return r.fd, r.err
}

func overlayOnThread(op *plan.Op, userns int) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make mounts private: %w", err)
	}
	trees := make([]int, 0, len(op.List[0])+2)
	defer func() { closeAll(trees) }()
	for _, dir := range op.List[0] {
		fd, err := cloneTree(dir, 0, plan.PropPrivate, userns)
		if err != nil {
			return -1, fmt.Errorf("clone layer %s: %w", dir, err)
		}
		trees = append(trees, fd)
	}
	base, err := writableBase(op, &trees)
	if err != nil {
		return -1, err
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "size=1m,mode=700"); err != nil {
		return -1, fmt.Errorf("mount scratch: %w", err)
	}
	if err := unix.Chdir("/tmp"); err != nil {
		return -1, err
	}
	return overlayOfShortNames(op, trees, base)
}

// writableBase clones the directory that holds both upper and work, which must lie on one mount.
func writableBase(op *plan.Op, trees *[]int) (int, error) {
	if op.Str[0] == "" {
		return -1, nil
	}
	parent := op.Str[0][:strings.LastIndexByte(op.Str[0], '/')]
	if !strings.HasPrefix(op.Str[1], parent+"/") {
		return -1, fmt.Errorf("upper %s and work %s have no common parent", op.Str[0], op.Str[1])
	}
	fd, err := cloneTree(parent, 0, plan.PropPrivate, -1)
	if err != nil {
		return -1, fmt.Errorf("clone %s: %w", parent, err)
	}
	*trees = append(*trees, fd)
	return len(*trees) - 1, nil
}

func overlayOfShortNames(op *plan.Op, trees []int, base int) (int, error) {
	names := make([]string, 0, len(trees))
	for i, fd := range trees {
		name := strconv.FormatInt(int64(i), 36)
		if err := os.Mkdir(name, 0o700); err != nil {
			return -1, err
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("attach layer %d: %w", i, err)
		}
		if i != base {
			names = append(names, name)
		}
	}
	data := append([]string{"lowerdir=" + strings.Join(names, ":")}, overlayOptions...)
	if base >= 0 {
		name := strconv.FormatInt(int64(base), 36)
		data = append(data, "upperdir="+name+op.Str[0][strings.LastIndexByte(op.Str[0], '/'):], "workdir="+name+op.Str[1][strings.LastIndexByte(op.Str[1], '/'):], "volatile")
	}
	data = append(data, op.List[1]...)
	if err := os.Mkdir("root", 0o700); err != nil {
		return -1, err
	}
	if err := unix.Mount("overlay", "root", "overlay", uintptr(op.Num[1]&0xf), strings.Join(data, ",")); err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, "root", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("take overlay out: %w", err)
	}
	return writable(fd, op)
}
