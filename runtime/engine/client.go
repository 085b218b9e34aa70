package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/wire"
)

// ErrMonitorGone is the error of a request whose monitor died before it answered.
var ErrMonitorGone = errors.New("the monitor is gone")

// errNotBegun is the error of a request that a dead monitor never got, or of which nothing is left: it may be made
// again, to another one.
var errNotBegun = fmt.Errorf("%w, nothing has begun", ErrMonitorGone)

// client is the daemon's end of one monitor.
type client struct {
	path string
	pid  int
	conn *net.UnixConn

	mu    sync.Mutex
	seq   uint64
	calls map[uint64]chan answer
	pods  map[string]bool // guarded by pool.mu
	dead  chan struct{}
	items chan answer // the list that follows a Welcome, ended by an item without id and pod
	exits func(*client, *wire.Message)
	log   *slog.Logger
}

type answer struct {
	msg *wire.Message
	fds []int
}

// dialLimit bounds the list of what a monitor has; without any answer it is given up earlier, see hungLimit.
const dialLimit = 30 * time.Second

// dial connects to a monitor's socket and asks what it has.
func (p *pool) dial(path string) (*client, []answer, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to monitor %s: %w", filepath.Base(path), err)
	}
	c := &client{path: path, conn: conn, calls: map[uint64]chan answer{}, pods: map[string]bool{}, dead: make(chan struct{}), items: make(chan answer, 64), exits: p.exits, log: p.log}
	go c.read()
	ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
	defer cancel()
	hello, err := c.call(ctx, &wire.Message{Type: wire.TypeHello})
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	c.pid = hello.msg.PID
	var items []answer
	for {
		select {
		case it := <-c.items:
			if it.msg.ID == "" && it.msg.Pod == "" {
				return c, items, nil
			}
			items = append(items, it)
		case <-c.dead:
			return nil, nil, ErrMonitorGone
		case <-ctx.Done():
			_ = conn.Close()
			return nil, nil, fmt.Errorf("monitor %s does not answer: %w", filepath.Base(path), ctx.Err())
		}
	}
}

func (c *client) read() {
	defer c.gone()
	packet, oob := make([]byte, wire.MaxMessage), make([]byte, unix.CmsgSpace(4*wire.MaxFDs))
	for {
		n, oobn, flags, _, err := c.conn.ReadMsgUnix(packet, oob)
		if err != nil || n == 0 {
			return
		}
		fds := parseRights(oob[:oobn])
		msg, err := wire.Decode(packet[:n])
		if err != nil {
			closeAll(fds)
			continue
		}
		if flags&unix.MSG_CTRUNC != 0 && msg.Err() == nil { // we have room for more than it sends
			msg.Errno, msg.Error = uint32(unix.EMFILE), "receive the monitor's descriptor: "+unix.EMFILE.Error()
		}
		c.deliver(answer{msg, fds})
	}
}

func (c *client) deliver(a answer) {
	switch a.msg.Type {
	case wire.TypeItem:
		c.items <- a
	case wire.TypeExit:
		closeAll(a.fds)
		c.exits(c, a.msg)
	default:
		c.mu.Lock()
		ch := c.calls[a.msg.Seq]
		delete(c.calls, a.msg.Seq)
		c.mu.Unlock()
		if ch == nil {
			closeAll(a.fds) // the caller gave up
			return
		}
		ch <- a
	}
}

func (c *client) gone() {
	_ = c.conn.Close()
	close(c.dead)
}

func (c *client) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// call sends a request and waits for its reply. Errors that the monitor met come back as errors.
func (c *client) call(ctx context.Context, msg *wire.Message, fds ...int) (answer, error) {
	if c == nil { // a container that is between two monitors
		return answer{}, errNotBegun
	}
	ch := make(chan answer, 1)
	c.mu.Lock()
	c.seq++
	msg.Seq = c.seq
	c.calls[msg.Seq] = ch
	c.mu.Unlock()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := c.write(msg, oob); err != nil {
		c.drop(msg.Seq)
		return answer{}, fmt.Errorf("%w: %w", errNotBegun, err)
	}
	defer c.mindSilence()()
	select {
	case a := <-ch:
		if err := a.msg.Err(); err != nil {
			closeAll(a.fds)
			return answer{}, err
		}
		return a, nil
	case <-c.dead:
		return answer{}, ErrMonitorGone
	case <-ctx.Done():
		c.drop(msg.Seq)
		return answer{}, fmt.Errorf("wait for monitor: %w", context.Cause(ctx))
	}
}

// write sends a packet. A monitor that does not read until the buffer is full, and then for hungLimit, hangs.
func (c *client) write(msg *wire.Message, oob []byte) error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(hungLimit))
	_, _, err := c.conn.WriteMsgUnix(msg.Encode(), oob, nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.putDown()
	}
	return err
}

func (c *client) drop(seq uint64) {
	c.mu.Lock()
	delete(c.calls, seq)
	c.mu.Unlock()
}

// tell sends a request whose outcome does not matter now: the monitor keeps its state until it is told again.
func (c *client) tell(msg *wire.Message) {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.seq++
	msg.Seq = c.seq
	c.mu.Unlock()
	_ = c.write(msg, nil)
}

func listenPacket(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make monitor socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("bind monitor socket %s: %w", path, err)
	}
	if err := unix.Chmod(path, 0o600); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("protect monitor socket %s: %w", path, err)
	}
	if err := unix.Listen(fd, 4); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return f, nil
}
