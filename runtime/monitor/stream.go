package monitor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"

	"golang.org/x/sys/unix"
)

// chunk is how much of a FIFO is looked at in one go, a pipe's default capacity. maxLine is the longest
// log entry: a longer line becomes several entries tagged P, as containerd and CRI-O cut it (16 KiB).
const (
	chunk   = 64 << 10
	maxLine = 16 << 10
)

// stream carries one output of a container to its log.
//
// From a FIFO nothing is consumed before it is in the log: tee(2) shows what is there, whole lines are
// written, then just those bytes are read away. The start of a line waits in the FIFO for its end. Around
// the write the stream keeps a note (pending) in a file under /run, from which the next monitor tells
// whether a write that was cut short by SIGKILL has happened and whether its bytes were consumed. So a line
// is neither lost nor doubled. A terminal cannot be peeked into: there the bytes come first.
type stream struct {
	fd      int
	name    string // stdout or stderr
	tty     bool
	rest    []byte // terminal only: the start of a line
	log     *logFile
	state   int // descriptor of the note's file, -1 without
	stateAt int64
	watched bool
	shown   int // of the bytes that wait in the FIFO, those that the viewers have seen
	of      *process
}

// pending is the note: n bytes with this hash are being written to the log, which had before bytes and will
// have after. n is 0 when nothing is under way.
type pending struct{ n, before, after, hash uint64 }

const pendingSize = 32

func (s *stream) note(p pending) {
	if s.state < 0 {
		return
	}
	var b [pendingSize]byte
	for i, v := range []uint64{p.n, p.before, p.after, p.hash} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	_, _ = unix.Pwrite(s.state, b[:], s.stateAt)
}

func (s *stream) readNote() pending {
	var b [pendingSize]byte
	if n, err := unix.Pread(s.state, b[:], s.stateAt); s.state < 0 || err != nil || n < pendingSize {
		return pending{}
	}
	le := binary.LittleEndian
	return pending{le.Uint64(b[0:]), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
}

// pump moves what is there, at most rounds chunks, so that one container cannot starve the others: what
// remains is found again because the last read of a full chunk re-arms the descriptor.
func (m *monitor) pump(s *stream, rounds int, last bool) {
	for range rounds {
		moved, err := m.move(s, last)
		if err != nil || moved == 0 {
			if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				m.unwatch(s.fd)
				s.watched = false
			}
			return
		}
	}
	m.rearm(s)
}

func (m *monitor) rearm(s *stream) {
	if s.watched {
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(s.fd)}
		_ = unix.EpollCtl(m.epoll, unix.EPOLL_CTL_MOD, s.fd, &ev)
	}
}

// move carries one chunk; last means that no more will come, so that a line without an end is written too.
func (m *monitor) move(s *stream, last bool) (int, error) {
	if s.tty {
		return m.moveTerminal(s, last)
	}
	seen, err := m.look(s)
	if err != nil || len(seen) == 0 {
		return 0, err
	}
	n := whole(seen, last && len(seen) < chunk) // a full chunk ends with a line, or is one
	if n == 0 {
		// The start of a line: wait for its end, unless that cannot come. The FIFO may have filled up since the look
		// into it, and then the line's end is in there.
		if !full(s.fd) {
			return 0, nil
		}
		if seen, err = m.look(s); err != nil {
			return 0, err
		}
		if n = whole(seen, false); n == 0 { // a line of many parts
			n = len(seen)
		}
	}
	m.write(s, seen[:n])
	if err := m.discard(s.fd, n); err != nil {
		return 0, err
	}
	s.shown -= n
	s.note(pending{})
	return n, nil
}

// look peeks into the stream's FIFO and shows the viewers what is new there.
func (m *monitor) look(s *stream) ([]byte, error) {
	seen, err := m.peek(s.fd)
	if s.shown < len(seen) {
		m.show(s, seen[s.shown:])
		s.shown = len(seen)
	}
	return seen, err
}

// full tells that nothing more fits into the FIFO, however few bytes are in it: with O_DIRECT each write takes a page of
// it (packet mode, pipe(2)), and a container may have made it as small as a page (F_SETPIPE_SZ).
func full(fifo int) bool {
	w, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fifo), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(w)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(w), Events: unix.POLLOUT}}, 0)
	return err == nil && n == 0
}

// peek copies what the FIFO holds without consuming it.
func (m *monitor) peek(fifo int) ([]byte, error) {
	n, err := unix.Tee(fifo, m.scratch[1], chunk, unix.SPLICE_F_NONBLOCK)
	if err != nil || n == 0 {
		return nil, err
	}
	have := 0
	for have < int(n) {
		k, err := unix.Read(m.scratch[0], m.buf[have:n])
		if err != nil {
			return nil, fmt.Errorf("read scratch pipe: %w", err)
		}
		have += k
	}
	return m.buf[:have], nil
}

// discard consumes n bytes that were peeked before.
func (m *monitor) discard(fifo, n int) error {
	for n > 0 {
		k, err := unix.Splice(fifo, nil, m.null, nil, n, unix.SPLICE_F_NONBLOCK)
		if err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		if k == 0 {
			return nil
		}
		n -= int(k)
	}
	return nil
}

// whole tells how many of the bytes can be written now: up to the last end of a line, everything when all
// is true, and a line that has grown too long without its end.
func whole(b []byte, all bool) int {
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 && !all {
		if len(b)-i-1 >= maxLine {
			return len(b)
		}
		return i + 1
	}
	if all || len(b) >= maxLine {
		return len(b)
	}
	return 0
}

// write puts bytes into the log as entries.
func (m *monitor) write(s *stream, b []byte) {
	m.out = appendEntries(m.out[:0], m.now(), s.name, b)
	s.log.write(m.out, len(b), func(before, after uint64) {
		if s.state >= 0 {
			s.note(pending{uint64(len(b)), before, after, hash(b)})
		}
	})
}

func hash(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// moveTerminal reads a terminal's master. EIO means that nobody holds the other end any more.
func (m *monitor) moveTerminal(s *stream, last bool) (int, error) {
	n, err := unix.Read(s.fd, m.buf[:maxLine])
	if n <= 0 {
		if last && len(s.rest) > 0 {
			m.write(s, s.rest)
			s.rest = nil
		}
		return 0, err
	}
	m.show(s, m.buf[:n])
	s.rest = append(s.rest, m.buf[:n]...)
	k := whole(s.rest, false)
	if k > 0 {
		m.write(s, s.rest[:k])
		s.rest = append(s.rest[:0], s.rest[k:]...)
	}
	return n, nil
}

// recover finishes or repeats the write that the monitor before this one was at when it died.
func (m *monitor) recover(s *stream) {
	p := s.readNote()
	if p.n == 0 || s.tty {
		return
	}
	defer s.note(pending{})
	if s.log.size < p.after {
		s.log.truncate(p.before) // torn: the bytes are still in the FIFO
		return
	}
	seen, err := m.peek(s.fd)
	if err == nil && uint64(len(seen)) >= p.n && hash(seen[:p.n]) == p.hash {
		_ = m.discard(s.fd, int(p.n))
	}
}
