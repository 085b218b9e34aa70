package umoci

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// look describes all that is below a directory, the directory included: by name one line.
func look(root string) (map[string]string, error) {
	tree := map[string]string{}
	links := map[uint64][]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return fmt.Errorf("stat %s: %w", p, err)
		}
		line, err := describe(p, &st)
		if err != nil {
			return err
		}
		tree[name] = line
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			links[st.Ino] = append(links[st.Ino], name)
		}
		return nil
	})
	// A file's other names, not its inode number, which no two trees share, nor its link count: overlayfs counts the names
	// that layers above hide, too.
	for _, names := range links {
		if len(names) < 2 {
			continue
		}
		sort.Strings(names)
		for _, n := range names {
			tree[n] += " links=" + strings.Join(names, "|")
		}
	}
	return tree, err
}

func describe(p string, st *unix.Stat_t) (string, error) {
	kind := map[uint32]string{unix.S_IFDIR: "dir", unix.S_IFREG: "file", unix.S_IFLNK: "symlink", unix.S_IFCHR: "char", unix.S_IFBLK: "block", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket"}[st.Mode&unix.S_IFMT]
	line := fmt.Sprintf("%s mode=%04o owner=%d:%d mtime=%d.%09d", kind, st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch kind {
	case "file":
		body, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" size=%d sha256=%x", st.Size, sha256.Sum256(body))
	case "symlink":
		to, err := os.Readlink(p)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" to=%q", to)
	case "char", "block":
		line += fmt.Sprintf(" dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	attrs, err := xattrs(p)
	return line + attrs, err
}

func xattrs(p string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return "", fmt.Errorf("list xattrs of %s: %w", p, err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	line := ""
	for _, name := range names {
		if name == "" {
			continue
		}
		val := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, val)
		if err != nil {
			return "", fmt.Errorf("read xattr %s of %s: %w", name, p, err)
		}
		line += fmt.Sprintf(" %s=%x", name, val[:n])
	}
	return line, nil
}

var anyTime = regexp.MustCompile(` mtime=\S+`)

// unpackTime finds the times that umoci gives to directories: of those that no layer has an entry for, and of those that
// a later layer put something into, it is the time of the unpacking. We give a constant to the former, and the latter
// keep their entry's.
var unpackTime = regexp.MustCompile(`^dir .* mtime=(\d+)\.\d+`)

// compare lists what differs, by name. began is when umoci did.
func compare(umoci, ours map[string]string, began time.Time) map[string]string {
	diff := map[string]string{}
	for name, line := range umoci {
		o, ok := ours[name]
		if m := unpackTime.FindStringSubmatch(line); m != nil {
			if at, err := strconv.ParseInt(m[1], 10, 64); err == nil && at >= began.Unix() {
				line, o = anyTime.ReplaceAllString(line, ""), anyTime.ReplaceAllString(o, "")
			}
		}
		if !ok {
			diff[name] = "umoci has " + line + ", we have nothing"
		} else if o != line {
			diff[name] = "umoci has " + line + "\n      we have   " + o
		}
	}
	for name, line := range ours {
		if _, ok := umoci[name]; !ok {
			diff[name] = "umoci has nothing, we have " + line
		}
	}
	return diff
}
