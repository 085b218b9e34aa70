package monitor

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/wire"
)

// viewer is one attachment: a socket that gets a copy of a container's output. Nothing waits for it. What does not fit
// into the socket's buffer is lost to it, and so is all that follows: it is told and let go once it reads again.
type viewer struct {
	fd   int
	last wire.Attached // its last packet, which waits for room; 0 while it gets output
}

// attach begins to copy a container's output into the socket. Of one that has ended only the end is told.
func (m *monitor) attach(id string, fds []int) error {
	p := m.procs[id]
	if p == nil || len(fds) != 1 {
		closeAll(fds)
		return unix.ESRCH
	}
	v := &viewer{fd: fds[0]}
	if err := m.watch(v.fd, unix.EPOLLRDHUP, func(events uint32) { m.attend(p, v, events) }); err != nil {
		_ = unix.Close(v.fd)
		return err
	}
	p.viewers = append(p.viewers, v)
	if p.exited {
		m.dismiss(p)
	}
	return nil
}

// show gives every viewer a copy of a stream's output.
func (m *monitor) show(s *stream, b []byte) {
	if len(s.of.viewers) == 0 {
		return
	}
	kind := wire.AttachedStdout
	if s.name == fifoStderr {
		kind = wire.AttachedStderr
	}
	for part := range slices.Chunk(b, wire.MaxAttached) {
		for _, v := range slices.Clone(s.of.viewers) {
			if v.last == 0 && !v.send(kind, part) {
				m.finish(s.of, v, wire.AttachedLost)
			}
		}
	}
}

// dismiss tells every viewer that the container has ended.
func (m *monitor) dismiss(p *process) {
	for _, v := range slices.Clone(p.viewers) {
		if v.last == 0 {
			m.finish(p, v, wire.AttachedEnd)
		}
	}
}

// finish sends a viewer its last packet, as soon as there is room.
func (m *monitor) finish(p *process, v *viewer, last wire.Attached) {
	if v.last = last; v.send(last, nil) {
		m.release(p, v)
		return
	}
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLOUT, Fd: int32(v.fd)}
	_ = unix.EpollCtl(m.epoll, unix.EPOLL_CTL_MOD, v.fd, &ev)
}

// attend: the daemon has let go of the socket, or has read and makes room for the last packet.
func (m *monitor) attend(p *process, v *viewer, events uint32) {
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 || v.send(v.last, nil) {
		m.release(p, v)
	}
}

func (m *monitor) release(p *process, v *viewer) {
	p.viewers = slices.DeleteFunc(p.viewers, func(other *viewer) bool { return other == v })
	m.unwatch(v.fd)
	_ = unix.Close(v.fd)
}

// send says whether the packet needs to be sent no more: it fitted, or nobody is there.
func (v *viewer) send(kind wire.Attached, b []byte) bool {
	_, err := unix.SendmsgBuffers(v.fd, [][]byte{{byte(kind)}, b}, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS)
}

// holdStdin keeps the FIFO stdin, if there is one, open for writing: until the first client of a container with
// stdin_once has gone, reading must wait and not find the end of file.
func (p *process) holdStdin(dir string) {
	fd, err := unix.Open(dir+"/"+fifoStdin, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == nil {
		p.stdin = fd
	}
}

func (p *process) closeStdin() {
	if p.stdin >= 0 {
		_ = unix.Close(p.stdin)
		p.stdin = -1
	}
}
