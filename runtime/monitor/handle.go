package monitor

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/wire"
)

// handle serves one message of the daemon. It owns the descriptors that came with it. The second result is
// a descriptor that goes with the reply, -1 for none.
func (m *monitor) handle(msg *wire.Message, fds []int) (*wire.Message, int) {
	done := &wire.Message{Type: wire.TypeDone, ID: msg.ID}
	switch msg.Type {
	case wire.TypeHello:
		closeAll(fds)
		return &wire.Message{Type: wire.TypeWelcome, PID: os.Getpid()}, -1
	case wire.TypeSpawn:
		return m.spawn(msg, fds)
	case wire.TypeAdopt:
		fail(done, "adopt", m.adopt(msg, fds))
	case wire.TypeTTY:
		fail(done, "take terminal", m.takeTerminal(msg.ID, fds))
	case wire.TypeReopen:
		closeAll(fds)
		fail(done, "reopen log", m.reopen(msg.ID, msg.Log))
	case wire.TypeAttach:
		fail(done, "attach", m.attach(msg.ID, fds))
	case wire.TypeCloseStdin:
		closeAll(fds)
		if p := m.procs[msg.ID]; p != nil {
			p.closeStdin()
		}
	case wire.TypeAck:
		closeAll(fds)
		m.acknowledge(msg.ID)
	case wire.TypeForget:
		closeAll(fds)
		m.leave = m.leave || msg.Pod == ""
		delete(m.pods, msg.Pod)
		for id, p := range m.procs {
			if p.pod == msg.Pod && p.exited {
				m.acknowledge(id)
			}
		}
	case wire.TypePing:
		closeAll(fds)
	default:
		closeAll(fds)
		done.Error = "unknown message: the daemon is newer than this monitor"
	}
	return done, -1
}

// fail puts an error into a reply.
func fail(reply *wire.Message, what string, err error) {
	if err == nil {
		return
	}
	reply.Error = what + ": " + err.Error()
	var errno unix.Errno
	if errors.As(err, &errno) {
		reply.Errno = uint32(errno)
	}
}

// sendItems tells a new daemon about every pod, for it has to say when that is gone, and about every process, with the
// terminals' masters.
func (m *monitor) sendItems() {
	for pod := range m.pods {
		m.send(&wire.Message{Type: wire.TypeItem, Pod: pod}, -1)
	}
	for id, p := range m.procs {
		item := &wire.Message{
			Type: wire.TypeItem, ID: id, Pod: p.pod, Kind: p.kind, PID: p.pid, StartTime: p.startTime, Terminal: p.terminal,
			Exited: p.exited, Status: p.status, At: p.at, TimedOut: p.timedOut, Unknown: p.unknown, Dropped: p.dropped(),
		}
		fd := -1
		if p.tty != nil {
			fd = p.tty.fd
		}
		m.send(item, fd)
	}
	m.send(&wire.Message{Type: wire.TypeItem}, -1) // the end of the list
}
