package cri

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hangups notices that a client has closed its connection, also while nobody reads from it: a command that does not
// read its stdin stalls the reader, and the end of file waits behind what was sent before.
//
// It is one epoll(7) instance, which the Go runtime's own poller waits for: no thread blocks in it. That sees the end
// of file once it is in our receive buffer; where that is full, see lookAtStalled.
type hangups struct {
	epoll *os.File
	done  chan struct{}

	mu      sync.Mutex
	next    int32
	watched map[int32]watched
}

type watched struct {
	conn *conn
	tell func()
}

func newHangups() (*hangups, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &hangups{epoll: os.NewFile(uintptr(fd), "hangups"), done: make(chan struct{}), watched: map[int32]watched{}}, nil
}

// add calls f, once, when the other side of c has closed it. Forget is to be called in any case.
func (h *hangups) add(c *conn, f func()) (forget func(), err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.next++ // not the descriptor, which may be another connection's soon
	id := h.next
	h.watched[id] = watched{c, f}
	h.mu.Unlock()
	forget = func() {
		h.mu.Lock()
		delete(h.watched, id)
		h.mu.Unlock()
		_ = h.control(raw, unix.EPOLL_CTL_DEL, id) // in vain when it is closed
	}
	if err := h.control(raw, unix.EPOLL_CTL_ADD, id); err != nil {
		forget()
		return nil, fmt.Errorf("watch connection: %w", err)
	}
	return forget, nil
}

func (h *hangups) control(conn syscall.RawConn, op int, id int32) error {
	epoll, err := h.epoll.SyscallConn()
	if err != nil {
		return err
	}
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: id}
	var ctlErr, inner error
	err = epoll.Control(func(ep uintptr) {
		inner = conn.Control(func(fd uintptr) { ctlErr = unix.EpollCtl(int(ep), op, int(fd), &ev) })
	})
	for _, e := range []error{err, inner, ctlErr} {
		if e != nil {
			return e
		}
	}
	return nil
}

// serve tells of hang-ups until close.
func (h *hangups) serve() {
	raw, err := h.epoll.SyscallConn()
	if err != nil {
		return
	}
	var events [32]unix.EpollEvent
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, ev := range events[:n] {
			h.mu.Lock()
			w, ok := h.watched[ev.Fd]
			h.mu.Unlock()
			if ok {
				w.tell()
			}
		}
	}
}

func (h *hangups) close() {
	close(h.done)
	_ = h.epoll.Close()
}

// stallInterval is how often connections with unread input are looked at.
const stallInterval = 2 * time.Second

// lookAtStalled notices clients whose end of file does not fit into our full receive buffer: TCP keeps it back until
// somebody reads, and the kernel gives up the dead client's socket after minutes. But clients are on this machine, and
// the state of their sockets can be looked up (sock_diag(7)).
func (h *hangups) lookAtStalled() {
	tick := time.NewTicker(stallInterval)
	defer tick.Stop()
	for {
		select {
		case <-h.done:
			return
		case <-tick.C:
		}
		h.mu.Lock()
		all := slices.Collect(maps.Values(h.watched))
		h.mu.Unlock()
		for _, w := range all {
			if w.conn.stalled() && w.conn.clientHasClosed() {
				w.tell()
			}
		}
	}
}

type connKey struct{}

// listener accepts conns.
type listener struct{ *net.TCPListener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &conn{TCPConn: c}, nil
}

// linger is how long a closed connection waits for its client to close it too.
const linger = time.Second

// conn is a client's connection. Closing a TCP socket with unread input resets the connection, and the client may lose
// what it has not read: the exit code. So an upgraded connection says its end of file and swallows what comes until the
// client has closed it.
type conn struct {
	*net.TCPConn
	upgraded atomic.Bool
	closed   atomic.Bool
}

func (c *conn) stalled() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	unread := 0
	err = raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return err == nil && unread > 0
}

// clientHasClosed looks at the client's socket: what is its local address is our remote one.
func (c *conn) clientHasClosed() bool {
	s, err := netlink.SocketGet(c.RemoteAddr(), c.LocalAddr())
	return err == nil && s.State != netlink.TCP_ESTABLISHED && s.State != netlink.TCP_CLOSE_WAIT
}

func (c *conn) Close() error {
	if !c.upgraded.Load() {
		return c.TCPConn.Close()
	}
	if c.closed.Swap(true) {
		return nil
	}
	_ = c.CloseWrite()
	_ = c.SetDeadline(time.Now().Add(linger))
	go func() {
		_, _ = io.Copy(io.Discard, c.TCPConn)
		_ = c.TCPConn.Close()
	}()
	return nil
}

func (c *conn) Read(b []byte) (int, error) {
	if c.closed.Load() {
		return 0, io.EOF
	}
	return c.TCPConn.Read(b)
}
