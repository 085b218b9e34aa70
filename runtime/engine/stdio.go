package engine

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stdio is an exec's standard streams, on our side: pipes or a terminal.
type stdio interface {
	// give tells the plan's run what it needs of us.
	give(r *run)
	// start begins to copy; the process runs.
	start()
	// finish delivers what the process has written. It has ended; somebody whom it left behind may hold the other end.
	finish()
	close()
}

func newStdio(req *ExecRequest) (stdio, error) {
	if req.Terminal {
		return &terminal{stdin: req.Stdin, stdout: req.Stdout, sizes: req.Sizes, tail: newTail()}, nil
	}
	return newPipes(req)
}

// drainGrace is how long a stream is read after its process has ended, when somebody that it left behind still holds
// it. What was written before the end is there already and needs no waiting.
const drainGrace = 20 * time.Millisecond

// drainLimit bounds in bytes what is read after the end: more than a pipe or a terminal holds, so that somebody who was
// left behind and goes on writing delays nothing.
const drainLimit = 1 << 20

// tail knows the end of a process, for the readers of its streams.
type tail struct {
	ended   chan struct{}
	copying sync.WaitGroup
}

func newTail() *tail { return &tail{ended: make(chan struct{})} }

// copy copies until the end of file, or the process has ended and nothing is left to read. A slow writer is waited for,
// and slows the process: its pipe is full.
func (t *tail) copy(w io.Writer, f *os.File) {
	t.copying.Go(func() {
		r := &tailReader{tail: t, f: f, left: drainLimit}
		if _, err := io.Copy(w, r); err != nil {
			_, _ = io.Copy(io.Discard, r) // the process must not block on a full pipe
		}
	})
}

// finish waits until the copies of these files have come to their end.
func (t *tail) finish(files ...*os.File) {
	close(t.ended)
	for _, f := range files {
		_ = f.SetReadDeadline(time.Now().Add(drainGrace))
	}
	t.copying.Wait()
}

func (t *tail) over() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// tailReader reads a stream to its end; see tail.
type tailReader struct {
	*tail
	f    *os.File
	left int // after the end
}

func (r *tailReader) Read(p []byte) (int, error) {
	for {
		over := r.over()
		if over {
			if r.left <= 0 {
				return 0, io.EOF
			}
			p = p[:min(len(p), r.left)]
			_ = r.f.SetReadDeadline(time.Now().Add(drainGrace)) // each read gets its own: the writer may have taken long
		}
		n, err := r.f.Read(p)
		if over {
			r.left -= n
		}
		switch {
		case n > 0:
			return n, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && !over:
			continue // the deadline of the end passed before this read looked
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.EIO): // EIO: a terminal that nobody has open
			return 0, io.EOF
		}
		return n, err
	}
}

// feed copies a client's input to the process, and closes done once it has ended. What the process does not want any
// more is swallowed, so that the client's connection does not stall.
func feed(w io.Writer, stdin io.Reader, done func()) {
	go func() {
		_, err := io.Copy(w, stdin)
		done()
		if err != nil {
			_, _ = io.Copy(io.Discard, stdin)
		}
	}()
}

// pollable makes a file of a descriptor, which it takes over, whose reads and writes occupy no thread.
func pollable(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}
