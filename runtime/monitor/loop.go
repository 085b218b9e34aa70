package monitor

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/wire"
)

// handler is called when its descriptor is ready.
type handler func(events uint32)

type monitor struct {
	epoll    int
	listen   int
	conn     int  // the daemon's connection, -1 without
	met      bool // a daemon was there
	leave    bool // the daemon does not want us as a spare
	patience time.Time
	handlers map[int32]handler
	procs    map[string]*process
	pods     map[string]bool
	scratch  [2]int // pipe for peeking into FIFOs
	buf      []byte
	out      []byte
	null     int
	now      func() time.Time
	deaf     time.Time // until then the listening socket is not looked at; zero: it is
}

// Run serves the listening socket until the last pod is gone. Path is the socket's, removed at the end.
func Run(listen int, path string) error {
	unix.CloseOnExec(listen)
	// Executed by descriptor, it would be called by the descriptor's number in ps and top.
	_ = os.WriteFile("/proc/self/comm", []byte("cri-mini-monitor"), 0)
	m, err := newMonitor(listen)
	if err != nil {
		return err
	}
	if err := m.watch(listen, unix.EPOLLIN, func(uint32) { m.accept() }); err != nil {
		return err
	}
	for m.patience = m.now().Add(connectLimit); !m.done(); {
		if err := m.step(); err != nil {
			return err
		}
	}
	return os.Remove(path)
}

func newMonitor(listen int) (*monitor, error) {
	m := &monitor{
		listen: listen, conn: -1, handlers: map[int32]handler{}, procs: map[string]*process{}, pods: map[string]bool{}, now: time.Now,
		buf: make([]byte, chunk), out: make([]byte, 0, 2*chunk),
	}
	var err error
	if m.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	if err := unix.Pipe2(m.scratch[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// As many packets as a container's FIFO may hold by fs.pipe-max-size. Without it, the line's end may lie behind those
	// that are seen, and wait for more to come.
	_, _ = unix.FcntlInt(uintptr(m.scratch[0]), unix.F_SETPIPE_SZ, 1<<20)
	if m.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	return m, nil
}

// connectLimit is how long a new monitor waits for the daemon that started it.
const connectLimit = 30 * time.Second

// done: with no pod left a monitor stays only as a spare, while a daemon is there that wants it.
func (m *monitor) done() bool {
	switch {
	case len(m.pods) > 0 || len(m.procs) > 0:
		return false
	case m.conn >= 0:
		return m.leave
	}
	return m.met || m.now().After(m.patience)
}

// step waits for the next events, or for the next timeout of an exec, and handles them.
func (m *monitor) step() error {
	var events [32]unix.EpollEvent
	n, err := unix.EpollWait(m.epoll, events[:], m.nextTimeout())
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for events: %w", err)
	}
	for _, ev := range events[:max(n, 0)] {
		if h := m.handlers[ev.Fd]; h != nil { // an earlier event of this round may have removed it
			h(ev.Events)
		}
	}
	m.killOverdue()
	if !m.deaf.IsZero() && !m.now().Before(m.deaf) {
		m.deaf = time.Time{}
		m.listenFor(unix.EPOLLIN)
	}
	return nil
}

func (m *monitor) watch(fd int, events uint32, h handler) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if err := unix.EpollCtl(m.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	m.handlers[int32(fd)] = h
	return nil
}

func (m *monitor) unwatch(fd int) {
	if fd < 0 {
		return
	}
	_ = unix.EpollCtl(m.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	delete(m.handlers, int32(fd))
}

// deafness is how long the listening socket rests when nobody can be accepted: it stays readable, and waiting for it
// would be a busy loop.
const deafness = 500 * time.Millisecond

// accept lets a daemon in. It replaces the one before, whose descriptor it may need: there is one owner of the state
// directory at a time.
func (m *monitor) accept() {
	fd, _, err := unix.Accept4(m.listen, unix.SOCK_CLOEXEC)
	if err == unix.EMFILE && m.conn >= 0 {
		m.hangUp()
		fd, _, err = unix.Accept4(m.listen, unix.SOCK_CLOEXEC)
	}
	if err == unix.EMFILE || err == unix.ENFILE || err == unix.ENOMEM || err == unix.ENOBUFS {
		m.deaf = m.now().Add(deafness)
		m.listenFor(0)
	}
	if err != nil {
		return
	}
	m.hangUp()
	m.conn, m.met = fd, true
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: sendTimeout})
	if m.watch(fd, unix.EPOLLIN, func(ev uint32) { m.receive() }) != nil {
		m.hangUp()
	}
}

func (m *monitor) listenFor(events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: int32(m.listen)}
	_ = unix.EpollCtl(m.epoll, unix.EPOLL_CTL_MOD, m.listen, &ev)
}

func (m *monitor) hangUp() {
	if m.conn < 0 {
		return
	}
	m.unwatch(m.conn)
	_ = unix.Close(m.conn)
	m.conn = -1
}

func (m *monitor) receive() {
	msg, fds, err := m.read()
	if msg == nil || err != nil && !errors.Is(err, unix.EMFILE) {
		closeAll(fds)
		m.hangUp()
		return
	}
	var reply *wire.Message
	give := -1
	if err == nil {
		reply, give = m.handle(msg, fds)
	} else {
		closeAll(fds)
		reply = &wire.Message{Type: wire.TypeDone, ID: msg.ID}
		fail(reply, "monitor: receive descriptors", err)
	}
	reply.Seq = msg.Seq
	m.send(reply, give)
	if reply.Type == wire.TypeWelcome {
		m.sendItems()
	}
}

// read gives the next message. With EMFILE it came without descriptors, or without some of them.
func (m *monitor) read() (*wire.Message, []int, error) {
	packet, oob := make([]byte, wire.MaxMessage), make([]byte, unix.CmsgSpace(4*wire.MaxFDs))
	n, oobn, flags, _, err := unix.Recvmsg(m.conn, packet, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return nil, nil, err
	}
	var fds []int
	if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for i := range cmsgs {
			if got, err := unix.ParseUnixRights(&cmsgs[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, fds, unix.EMSGSIZE
	}
	msg, err := wire.Decode(packet[:n])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = unix.EMFILE // there was room for wire.MaxFDs of them
	}
	return msg, fds, err
}

// sendTimeout is how long a daemon may take to read, in seconds. One that is stopped longer is hung up on, so that logs
// flow; exits are kept, and it connects again.
const sendTimeout = 10

// send delivers to the daemon, if there is one.
func (m *monitor) send(msg *wire.Message, fd int) {
	if m.conn < 0 {
		return
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	if err := unix.Sendmsg(m.conn, msg.Encode(), oob, nil, unix.MSG_NOSIGNAL); err != nil {
		m.hangUp()
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
