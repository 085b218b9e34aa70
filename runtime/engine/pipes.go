package engine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pipes are the standard streams of an exec without a terminal.
type pipes struct {
	*tail
	stdin  io.Reader
	output [2]io.Writer
	ours   [3]*os.File // nil for a stdin that is /dev/null
	theirs [3]*os.File
}

func newPipes(req *ExecRequest) (*pipes, error) {
	p := &pipes{tail: newTail(), stdin: req.Stdin, output: [2]io.Writer{req.Stdout, req.Stderr}}
	for i, w := range p.output {
		if w == nil {
			p.output[i] = io.Discard
		}
	}
	return p, errors.Join(p.openStdin(), p.openOutput(1), p.openOutput(2))
}

func (p *pipes) openStdin() (err error) {
	if p.stdin == nil {
		p.theirs[0], err = os.Open(os.DevNull)
		return err
	}
	p.theirs[0], p.ours[0], err = openPipe("stdin", 1)
	return err
}

func (p *pipes) openOutput(i int) (err error) {
	p.ours[i], p.theirs[i], err = openPipe("output", 0)
	return err
}

// openPipe makes our end of the two pollable; the other is a process's, which expects it to block.
func openPipe(name string, our int) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	_ = unix.SetNonblock(fds[our], true)
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

func (p *pipes) give(r *run) {
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		r.given[name] = int(p.theirs[i].Fd())
	}
}

func (p *pipes) start() {
	for _, f := range p.theirs {
		_ = f.Close() // our copy would hide the end of file
	}
	for i, w := range p.output {
		p.copy(w, p.ours[i+1])
	}
	if p.stdin != nil {
		feed(p.ours[0], p.stdin, func() { _ = p.ours[0].Close() })
	}
}

func (p *pipes) finish() { p.tail.finish(p.ours[1], p.ours[2]) }

func (p *pipes) close() {
	for i := range p.ours {
		for _, f := range []*os.File{p.ours[i], p.theirs[i]} {
			if f != nil {
				_ = f.Close()
			}
		}
	}
}
