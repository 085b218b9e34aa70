package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroup files are written and read by plain system calls: os.File costs an
// allocation, a poller registration and a finalizer for each of the dozens of
// files that one container needs.

// writeFile writes value in one write(2), as cgroupfs wants it.
func writeFile(dir, file, value string) error {
	path := dir + "/" + file
	fd, err := open(path, unix.O_WRONLY)
	if err == nil {
		_, err = retry(func() (int, error) { return unix.Write(fd, []byte(value)) })
		unix.Close(fd)
	}
	if err != nil {
		return &WriteError{Path: path, Value: value, Err: err}
	}
	return nil
}

// WriteError says which value a cgroup file refused.
type WriteError struct {
	Path, Value string
	// Hint says what the errno means for this file, when that is known.
	Hint string
	Err  error
}

// Error has the form: write "5" to /sys/fs/cgroup/…: device or resource busy (hint).
func (e *WriteError) Error() string {
	text := fmt.Sprintf("write %q to %s: %v", strings.TrimSuffix(e.Value, "\n"), e.Path, e.Err)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *WriteError) Unwrap() error { return e.Err }

// readFile returns a file's text without the last newline. A first read that does
// not fill the buffer was all: seq_file puts as many records as there are into a
// page, of which the buffer is half, before it returns.
func readFile(dir, file string) (string, error) {
	path := dir + "/" + file
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var first [2048]byte
	buf, n := first[:], 0
	for {
		got, err := retry(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return "", &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n += got; got == 0 || n < len(first) {
			return strings.TrimSuffix(string(buf[:n]), "\n"), nil
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// readUint reads a file with one number; "max" is math.MaxUint64, which is also
// what numbers above it and v1's -1 become.
func readUint(dir, file string) (uint64, error) {
	text, err := readFile(dir, file)
	if err != nil {
		return 0, err
	}
	n, err := parseLimit(text)
	if err != nil {
		return 0, fmt.Errorf("parse %s/%s: %w", dir, file, err)
	}
	return n, nil
}

func parseLimit(text string) (uint64, error) {
	if text == "max" || text == "-1" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// keyed calls use for each "key value" line of a file whose value is a number.
func keyed(text string, use func(key string, value uint64)) {
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			use(key, n)
		}
	}
}

// lookup returns the number behind one key of a "key value" file, or 0.
func lookup(text, key string) (found uint64) {
	keyed(text, func(k string, v uint64) {
		if k == key {
			found = v
		}
	})
	return found
}

// open never follows a link in the last component: cgroupfs has none.
func open(path string, flags int) (int, error) {
	return retry(func() (int, error) {
		return unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
}

// retry repeats a call that a signal interrupted; Go sends itself many.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// exists reports whether a path is there.
func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// subdirs returns the names of the child cgroups of dir. A cgroup directory has
// two links plus one for each child, so that one without is told by one call.
func subdirs(dir string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Nlink <= 2 {
		return nil, nil
	}
	return listDirs(dir)
}
