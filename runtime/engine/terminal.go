package engine

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"golang.org/x/sys/unix"
)

// WindowSize is a terminal's size in characters.
type WindowSize struct{ Width, Height uint16 }

// terminal is the standard streams of an exec with one. Its output has no stderr. The client's end of stdin changes
// nothing: on a terminal the end of file is a key.
type terminal struct {
	*tail
	stdin  io.Reader
	stdout io.Writer
	sizes  iter.Seq[WindowSize]
	master *os.File // nil until the process has crossed the console barrier
}

func (t *terminal) give(r *run) {
	r.onConsole = func(master int) (err error) {
		t.master, err = dupPollable(master, "terminal")
		return err
	}
}

func dupPollable(fd int, name string) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", name, err)
	}
	return pollable(fd, name), nil
}

func (t *terminal) start() {
	if t.stdout == nil {
		t.stdout = io.Discard
	}
	t.copy(t.stdout, t.master)
	if t.stdin != nil {
		feed(t.master, t.stdin, func() {})
	}
	if t.sizes != nil {
		go resize(t.master, t.sizes)
	}
}

func (t *terminal) finish() { t.tail.finish(t.master) }

func (t *terminal) close() {
	if t.master != nil {
		_ = t.master.Close()
	}
}

// resize sets each size as it comes, until no more come or the file is closed.
func resize(tty *os.File, sizes iter.Seq[WindowSize]) {
	for s := range sizes {
		if setSize(tty, s) != nil {
			return
		}
	}
}

func setSize(tty *os.File, s WindowSize) error {
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: s.Width, Row: s.Height})
	})
	return errors.Join(ctlErr, err)
}
