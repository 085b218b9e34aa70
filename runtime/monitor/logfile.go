package monitor

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// logFile is a container's log. A write that does not fit (ENOSPC, EDQUOT) is taken back whole and counted:
// the container never waits for space, and the file never holds half an entry.
type logFile struct {
	path    string
	fd      int
	size    uint64
	dropped uint64 // bytes of output that were not logged
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path, fd: -1}
	if err := l.reopen(path); err != nil {
		return nil, err
	}
	return l, nil
}

// reopen opens the path again after the kubelet moved the file away. On an error the old file stays in use.
func (l *logFile) reopen(path string) error {
	if err := makeParents(filepath.Dir(path)); err != nil {
		return fmt.Errorf("make log directory of %s: %w", path, err)
	}
	fd, size, err := openRegular(path)
	if err != nil {
		return fmt.Errorf("open log %s: %w", path, err)
	}
	l.close()
	l.path, l.fd, l.size = path, fd, size
	return nil
}

// errNotRegular says that a log would go into a FIFO, a device or a socket.
var errNotRegular = errors.New("it is not a regular file")

// openRegular opens a log without ever waiting. A pod with the node's log directory mounted may have put anything at
// the path: opening a FIFO would stop this monitor, with all pods it has, until somebody reads. Nothing but the null
// device, of a container that asked for no log, stands for a file.
func openRegular(path string) (fd int, size uint64, err error) {
	fd, err = unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o640)
	if err == unix.ENXIO { // a FIFO without a reader, a socket
		return -1, 0, errNotRegular
	}
	if err != nil {
		return -1, 0, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG && path != nullLog {
		err = errNotRegular
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	return fd, uint64(st.Size), nil
}

func makeParents(dir string) error {
	err := unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT && dir != "/" && dir != "." {
		if err := makeParents(filepath.Dir(dir)); err != nil {
			return err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	if err == unix.EEXIST {
		return nil
	}
	return err
}

// write appends entries that stand for n bytes of output. before is told the sizes first.
func (l *logFile) write(entries []byte, n int, announce func(before, after uint64)) {
	announce(l.size, l.size+uint64(len(entries)))
	done := 0
	for done < len(entries) {
		k, err := unix.Write(l.fd, entries[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			l.takeBack(uint64(done))
			l.dropped += uint64(n)
			return
		}
		done += k
	}
	l.size += uint64(done)
}

// takeBack cuts off the last n bytes. The end is asked for: somebody may have truncated the file since (logrotate's
// copytruncate), and cutting it at the size that it had would fill it with zeros up to there.
func (l *logFile) takeBack(n uint64) {
	var st unix.Stat_t
	if unix.Fstat(l.fd, &st) == nil && uint64(st.Size) >= n {
		l.truncate(uint64(st.Size) - n)
	}
}

// truncate never makes the file longer.
func (l *logFile) truncate(size uint64) {
	var st unix.Stat_t
	if unix.Fstat(l.fd, &st) != nil {
		return
	}
	if size = min(size, uint64(st.Size)); size < uint64(st.Size) {
		_ = unix.Ftruncate(l.fd, int64(size))
	}
	l.size = size
}

func (l *logFile) close() {
	if l.fd >= 0 {
		_ = unix.Close(l.fd)
		l.fd = -1
	}
}
