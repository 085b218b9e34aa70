package monitor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The files in a container's directory under /run that this package knows.
const (
	fifoStdout = "stdout"
	fifoStderr = "stderr"
	fifoStdin  = "stdin"
	noteFile   = "log.pending"
)

// nullLog takes the output of a container that asked for no log.
const nullLog = "/dev/null"

// openLogs opens the log and, for a container without a terminal, the FIFOs that its init has open for
// reading and writing.
func (m *monitor) openLogs(p *process, path, dir string) error {
	if dir == "" {
		return nil
	}
	if path == "" {
		path = nullLog
	}
	var err error
	if p.log, err = openLog(path); err != nil {
		return err
	}
	if p.terminal {
		return nil
	}
	p.holdStdin(dir)
	if p.out, err = m.openStream(p, dir, fifoStdout, 0); err == nil {
		p.errout, err = m.openStream(p, dir, fifoStderr, pendingSize)
	}
	// Both have recovered before either goes on: what a note says of the log holds until something is appended.
	for _, s := range p.streams() {
		if err == nil {
			err = m.start(s)
		}
	}
	if err != nil {
		m.closeStreams(p)
	}
	return err
}

func (m *monitor) openStream(p *process, dir, name string, noteAt int64) (*stream, error) {
	fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open fifo %s/%s: %w", dir, name, err)
	}
	s := &stream{fd: fd, name: name, log: p.log, stateAt: noteAt, of: p}
	if s.state, err = unix.Open(dir+"/"+noteFile, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s/%s: %w", dir, noteFile, err)
	}
	m.recover(s)
	return s, nil
}

// start begins to carry; what is there already is carried at once.
func (m *monitor) start(s *stream) error {
	if err := m.watch(s.fd, unix.EPOLLIN|unix.EPOLLET, func(uint32) { m.pump(s, 16, false) }); err != nil {
		return err
	}
	s.watched = true
	m.pump(s, 16, false)
	return nil
}

// takeTerminal gets the master that crossed the console barrier.
func (m *monitor) takeTerminal(id string, fds []int) error {
	p := m.procs[id]
	if p == nil || len(fds) != 1 {
		closeAll(fds)
		return errors.New("no such process, or not one descriptor")
	}
	return m.attachTerminal(p, fds[0])
}

// attachTerminal owns the descriptor, also when it fails.
func (m *monitor) attachTerminal(p *process, fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return err
	}
	p.tty = &stream{fd: fd, name: fifoStdout, tty: true, log: p.log, state: -1, of: p}
	if p.log == nil {
		return nil
	}
	return m.start(p.tty)
}

func (m *monitor) reopen(id, path string) error {
	p := m.procs[id]
	if p == nil || p.log == nil {
		return errors.New("no such container, or it has no log")
	}
	for _, s := range p.streams() {
		m.pump(s, 64, false) // what was said before belongs to the old file
	}
	if path == "" {
		path = p.log.path
	}
	return p.log.reopen(path)
}

func (p *process) streams() []*stream {
	var out []*stream
	for _, s := range []*stream{p.out, p.errout, p.tty} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// drainStreams writes what a dead container left, a last line without its end included. Bounded, because a
// process outside the container may hold the FIFO and go on writing.
func (m *monitor) drainStreams(p *process) {
	for _, s := range p.streams() {
		if s.log != nil {
			m.pump(s, 64, false)
			m.pump(s, 64, true)
		}
		m.unwatch(s.fd)
		s.watched = false
	}
	if p.log != nil {
		p.log.close()
	}
}

func (m *monitor) closeStreams(p *process) {
	for _, s := range p.streams() {
		m.unwatch(s.fd)
		_ = unix.Close(s.fd)
		if s.state >= 0 {
			_ = unix.Close(s.state)
		}
	}
	if p.log != nil {
		p.log.close()
	}
	p.out, p.errout, p.tty = nil, nil, nil
	p.closeStdin()
}

func (p *process) dropped() uint64 {
	if p.log == nil {
		return 0
	}
	return p.log.dropped
}
