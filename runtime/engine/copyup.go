package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// copyUp makes a tmpfs with a copy of a directory of the container in it. The directory is found below the root's
// descriptor, and nothing in it is followed or left: whoever made the image, or writes to a volume in it, cannot bring a
// file of the host in.
//
// The file system is ours, not the user namespace's of the process pid, so ids of that are translated.
func copyUp(op *plan.Op, root, pid int) (int, error) {
	from, err := unix.Openat2(root, op.Str[0], &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("open what it covers: %w", err)
	}
	if err == nil {
		defer unix.Close(from)
	}
	options, err := tmpfsOptions(op.List[0], from, pid)
	if err != nil {
		return -1, err
	}
	tree, err := newTmpfs(options, op.Num[0])
	if err != nil || from < 0 {
		return tree, err
	}
	to, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(to)
		err = copyDir(from, to, maxDepth)
	}
	if err != nil {
		_ = unix.Close(tree)
		return -1, fmt.Errorf("copy what it covers: %w", err)
	}
	return tree, nil
}

// tmpfsOptions puts mode and owner of the directory that is covered, or root's, before options that may say otherwise.
func tmpfsOptions(options []string, dir, pid int) ([]string, error) {
	var list []string
	if dir >= 0 {
		var st unix.Stat_t
		if err := unix.Fstat(dir, &st); err != nil {
			return nil, err
		}
		list = []string{"mode", fmt.Sprintf("%o", st.Mode&0o7777), "uid", fmt.Sprint(st.Uid), "gid", fmt.Sprint(st.Gid)}
	} else {
		options = append([]string{"mode", "755", "uid", "0", "gid", "0"}, options...)
	}
	for i := 0; i+1 < len(options); i += 2 {
		key, value := options[i], options[i+1]
		if key == "uid" || key == "gid" {
			id, err := hostID(pid, key, value)
			if err != nil {
				return nil, err
			}
			value = id
		}
		list = append(list, key, value)
	}
	return list, nil
}

// hostID translates an id of a process's user namespace (user_namespaces(7), /proc/PID/uid_map).
func hostID(pid int, kind, id string) (string, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return "", fmt.Errorf("option %s: %q is not an id", kind, id)
	}
	file := fmt.Sprintf("/proc/%d/%s_map", pid, kind)
	maps, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(maps)) {
		var inside, outside, size uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err == nil && n >= inside && n-inside < size {
			return strconv.FormatUint(outside+n-inside, 10), nil
		}
	}
	return "", fmt.Errorf("option %s: %s is not mapped in the user namespace", kind, id)
}

func newTmpfs(options []string, attrs uint64) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system context: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", "tmpfs"); err != nil {
		return -1, err
	}
	for i := 0; i+1 < len(options); i += 2 {
		if options[i+1] == "" {
			err = unix.FsconfigSetFlag(fs, options[i])
		} else {
			err = unix.FsconfigSetString(fs, options[i], options[i+1])
		}
		if err != nil {
			return -1, fmt.Errorf("set %s: %w", options[i], contextError(fs, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make tmpfs: %w", contextError(fs, err))
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
}

// maxDepth bounds the recursion: the kernel has paths of 4096 bytes, so that nobody gets deeper by usual means.
const maxDepth = 2048

// copyDir copies the content of a directory. It closes neither.
func copyDir(from, to, depth int) error {
	if depth == 0 {
		return unix.ELOOP
	}
	fd, err := unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "directory")
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(from, to, name, depth); err != nil && !errors.Is(err, unix.ENOENT) { // removed meanwhile
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func copyEntry(from, to int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = copyFile(from, to, name, &st)
	case unix.S_IFDIR:
		err = copySub(from, to, name, depth, &st)
	case unix.S_IFLNK:
		err = copyLink(from, to, name, &st)
	case unix.S_IFSOCK:
		return nil // nobody listens on a copy
	default:
		if err = unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err == nil {
			err = unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
		}
	}
	if errors.Is(err, unix.EXDEV) {
		return nil // a mount's content stays where it is
	}
	if err != nil {
		return err
	}
	// Last, for a change of owner takes set-user-id bits away, and writing sets times.
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// openEntry opens an entry that lies on the same mount and is no link.
func openEntry(dir int, name string, flags uint64) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

func copySub(from, to int, name string, depth int, st *unix.Stat_t) error {
	source, err := openEntry(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	target, err := openEntry(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := copyDir(source, target, depth-1); err != nil {
		return err
	}
	return copyAttributes(source, target, st)
}

func copyFile(from, to int, name string, st *unix.Stat_t) error {
	source, err := openEntry(from, name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(source), name)
	defer in.Close()
	target, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(target), name)
	_, err = io.Copy(out, in)
	if err == nil {
		err = copyAttributes(source, target, st)
	}
	return errors.Join(err, out.Close())
}

func copyLink(from, to int, name string, st *unix.Stat_t) error {
	var b [unix.PathMax]byte
	n, err := unix.Readlinkat(from, name, b[:])
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(b[:n]), to, name); err != nil {
		return err
	}
	return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

// copyAttributes sets the owner, and then copies extended attributes, for a change of owner takes file capabilities away.
// Those that a tmpfs cannot have are left out.
func copyAttributes(from, to int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	names := make([]byte, 1<<16)
	n, err := unix.Flistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 1<<16)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		m, err := unix.Fgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:m], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}
