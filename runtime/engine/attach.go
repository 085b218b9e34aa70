package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/wire"
)

// AttachRequest describes a client of a running container's streams.
type AttachRequest struct {
	ID             string
	Stdin          io.Reader // nil: does not write
	Stdout, Stderr io.Writer // nil: not wanted; a terminal has only stdout
	Sizes          iter.Seq[WindowSize]
	// HasStdin: the container was started with an open stdin. Without, what the client sends is swallowed.
	HasStdin bool
	// Once: the end of the client's Stdin is the end of the container's, for good.
	Once bool
}

// ErrSlow is the error of an attachment whose client did not read in time.
var ErrSlow = errors.New("the client reads too slowly: output was dropped, see the log")

// attachBuffer is how far in bytes an attachment may fall behind.
const attachBuffer = 1 << 20

// Attach copies a running container's output to the client and its input to the container. It returns nil when the
// container has ended, or when the client's input has, unless that is the end of the container's too. A monitor that
// dies is replaced; what is written meanwhile is in the log only. A read of Stdin may outlast the return.
func (e *Engine) Attach(ctx context.Context, req AttachRequest) error {
	e.mu.Lock()
	p := e.procs[req.ID]
	e.mu.Unlock()
	if p == nil || p.ended() {
		return ErrGone
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	output, err := e.view(ctx, p) // before the first input can have an answer
	if err != nil {
		return err
	}
	if err := e.attachInput(ctx, p, &req, func() { cancel(errInputEnded) }); err != nil {
		_ = output.Close()
		return err
	}
	err = e.relay(ctx, p, &req, output)
	if errors.Is(err, errInputEnded) {
		return nil
	}
	return err
}

var errInputEnded = errors.New("the client's input has ended")

// relay copies output until the container's end.
func (e *Engine) relay(ctx context.Context, p *process, req *AttachRequest, output net.Conn) error {
	for {
		last, err := copyOutput(ctx, req, output)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case last == wire.AttachedLost:
			return ErrSlow
		case last == wire.AttachedEnd || p.ended():
			return nil
		}
		if output, err = e.view(ctx, p); errors.Is(err, ErrGone) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// copyOutput copies packets until the last, which it gives; 0 when the monitor has died.
func copyOutput(ctx context.Context, req *AttachRequest, output net.Conn) (wire.Attached, error) {
	defer output.Close()
	stop := context.AfterFunc(ctx, func() { _ = output.Close() })
	defer stop()
	packet := make([]byte, 1+wire.MaxAttached)
	for {
		n, err := output.Read(packet)
		if err != nil || n == 0 {
			return 0, nil //nolint:nilerr // its end, whatever the kernel calls it
		}
		kind, w := wire.Attached(packet[0]), req.Stdout
		switch kind {
		case wire.AttachedEnd, wire.AttachedLost:
			return kind, nil
		case wire.AttachedStderr:
			w = req.Stderr
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(packet[1:n]); err != nil {
			return 0, fmt.Errorf("write to client: %w", err)
		}
	}
}

// view asks the container's monitor, now or the one that takes a dead one's place, for its output.
func (e *Engine) view(ctx context.Context, p *process) (net.Conn, error) {
	for {
		output, err := e.viewOnce(ctx, p)
		var remote *wire.RemoteError
		// The monitor that takes over may not have it yet.
		notYet := errors.As(err, &remote) && remote.Errno == uint32(unix.ESRCH)
		if !notYet && !errors.Is(err, ErrMonitorGone) {
			return output, err
		}
		select {
		case <-p.done:
			return nil, ErrGone
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (e *Engine) viewOnce(ctx context.Context, p *process) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(pair[1])
	ours := os.NewFile(uintptr(pair[0]), "attachment")
	defer ours.Close()
	// More than net.core.wmem_max needs CAP_NET_ADMIN; without, the buffer is that.
	if unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, attachBuffer) != nil {
		_ = unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_SNDBUF, attachBuffer)
	}
	e.mu.Lock()
	c := p.client
	e.mu.Unlock()
	if _, err := c.call(ctx, &wire.Message{Type: wire.TypeAttach, ID: p.id}, pair[1]); err != nil {
		return nil, fmt.Errorf("attach to %s: %w", p.id, err)
	}
	output, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", p.id, err)
	}
	return output, nil
}

// attachInput copies the client's input to the container, and calls ended when that ends the attachment.
func (e *Engine) attachInput(ctx context.Context, p *process, req *AttachRequest, ended func()) error {
	if p.tty != nil && req.Sizes != nil {
		tty, err := dupPollable(int(p.tty.Fd()), "terminal")
		if err != nil {
			return err
		}
		go func() { resize(tty, req.Sizes); _ = tty.Close() }()
	}
	if req.Stdin == nil {
		return nil
	}
	if !req.HasStdin {
		go func() { _, _ = io.Copy(io.Discard, req.Stdin) }()
		return nil
	}
	w, err := p.openInput()
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("attach to stdin of %s: it was closed by an earlier client (stdin_once)", p.id)
	}
	if err != nil {
		return fmt.Errorf("attach to stdin of %s: %w", p.id, err)
	}
	context.AfterFunc(ctx, func() { _ = w.Close() })
	feed(w, req.Stdin, func() {
		_ = w.Close()
		if req.Once && p.tty == nil {
			e.closeStdin(p)
			return
		}
		ended()
	})
	return nil
}

// openInput opens what a client writes to.
func (p *process) openInput() (*os.File, error) {
	if p.tty != nil {
		return dupPollable(int(p.tty.Fd()), "terminal")
	}
	return os.OpenFile(p.stdinPath(), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
}

func (p *process) stdinPath() string { return filepath.Join(p.dir, "stdin") }

// holdStdin keeps the FIFO stdin, if there is one, open for writing beside the monitor, whose death must not be the end
// of file.
func (e *Engine) holdStdin(p *process) {
	f, err := os.OpenFile(p.stdinPath(), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // there is none, or it was closed for good, or nobody reads any more
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.ended() {
		_ = f.Close()
		return
	}
	p.stdin = f
}

// placeStdin is holdStdin for a container of the daemon before, which may have died between the removal of the FIFO and
// the message to the monitor.
func (e *Engine) placeStdin(p *process) {
	if _, err := os.Lstat(p.stdinPath()); err == nil {
		e.holdStdin(p)
		return
	}
	p.client.tell(&wire.Message{Type: wire.TypeCloseStdin, ID: p.id})
}

// closeStdin ends a container's input for good.
func (e *Engine) closeStdin(p *process) {
	_ = os.Remove(p.stdinPath())
	e.mu.Lock()
	c := p.client
	p.dropStdin()
	e.mu.Unlock()
	c.tell(&wire.Message{Type: wire.TypeCloseStdin, ID: p.id})
}

// dropStdin: see holdStdin. Caller holds the engine's mutex.
func (p *process) dropStdin() {
	if p.stdin != nil {
		_ = p.stdin.Close()
		p.stdin = nil
	}
}
