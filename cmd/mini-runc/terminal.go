package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/engine"
)

// attachment says how this process goes on once the container's process runs.
type attachment struct {
	detach      bool
	terminal    bool
	pidFile     string
	pidfdSocket string // a listening UNIX socket that gets a pidfd of the process
	kind        string // the word that goes with the pidfd
	notify      *notify

	conn *net.UnixConn // to pidfdSocket
}

// The words that runc sends with a pidfd.
const (
	pidfdInit = "standard"
	pidfdExec = "setns"
)

// connect finds out that nobody listens before there is a process.
func (at *attachment) connect() (err error) {
	if at.pidfdSocket == "" {
		return nil
	}
	if at.conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: at.pidfdSocket, Net: "unix"}); err != nil {
		return fmt.Errorf("--pidfd-socket: %w", err)
	}
	return nil
}

func (at *attachment) close() {
	if at.conn != nil {
		_ = at.conn.Close()
	}
}

// announce tells the caller about a process that is our child: its pidfd, then its pid file.
func (at *attachment) announce(pid int) error {
	if at.conn != nil {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return fmt.Errorf("--pidfd-socket: open pidfd of process %d: %w", pid, err)
		}
		_, _, err = at.conn.WriteMsgUnix([]byte(at.kind), unix.UnixRights(fd), nil)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("--pidfd-socket: %w", err)
		}
	}
	return writePID(at.pidFile, pid)
}

// launcher starts a process; console gets the terminal's master if there is one.
type launcher func(ctx context.Context, console func(*os.File) error) (*engine.Process, error)

// foreground starts a process and stays with it: it holds its terminal, passes signals on and waits. Detached, it
// only starts it. The code is the process's.
func foreground(ctx context.Context, launch launcher, at attachment) (int, error) {
	if err := at.connect(); err != nil {
		return -1, err
	}
	defer at.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := watchSignals(cancel)
	var console func(*os.File) error
	t := &terminal{}
	if at.terminal && !at.detach {
		console = t.attach
	}
	p, err := launch(ctx, console)
	defer t.restore()
	if err != nil {
		return -1, err
	}
	if err := at.announce(p.PID); err != nil {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
		return -1, err
	}
	if at.detach {
		if at.notify != nil {
			return 0, at.notify.forward(ctx, p.PID, p.PID)
		}
		return 0, nil
	}
	if at.notify != nil { // the supervisor watches us, who end with the container
		go func() { _ = at.notify.forward(ctx, p.PID, os.Getpid()) }()
	}
	s.forward(p, t)
	code, err := p.Wait()
	t.drain()
	return code, err
}

// signals passes on what this process gets. Before there is a process, the ones that end programs cancel the start;
// where that comes too late, the process gets the last of them.
type signals struct {
	ch     chan os.Signal
	cancel context.CancelFunc
	mu     sync.Mutex
	p      *engine.Process
	t      *terminal
	early  unix.Signal // what has cancelled the start, 0 for nothing
}

// common are the signals that are taken before there is a process. Each takes two changes of thread, half a
// millisecond for all that there are: the rest is taken while the process runs. None is given back; this process ends
// with its command.
var common = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTSTP, unix.SIGWINCH,
}

func watchSignals(cancel context.CancelFunc) *signals {
	s := &signals{ch: make(chan os.Signal, 128), cancel: cancel}
	signal.Notify(s.ch, common...)
	go func() {
		for sig := range s.ch {
			s.handle(sig.(unix.Signal))
		}
	}()
	return s
}

func (s *signals) handle(sig unix.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, t := s.p, s.t
	switch sig {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE: // children; Go's own; a reader of ours that has gone
	case unix.SIGWINCH:
		if t != nil {
			t.resize()
		}
	case unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT:
		if p == nil {
			s.early = sig
			s.cancel()
			return
		}
		_ = p.Signal(sig)
	default:
		if p != nil {
			_ = p.Signal(sig)
		}
	}
}

func (s *signals) forward(p *engine.Process, t *terminal) {
	s.mu.Lock()
	s.p, s.t = p, t
	if s.early != 0 {
		_ = p.Signal(s.early)
	}
	s.mu.Unlock()
	t.resize()
	go signal.Notify(s.ch) // all of them
}

// untilSignal ends with the signals that end programs.
func untilSignal(ctx context.Context) context.Context {
	ctx, _ = signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	return ctx
}

// terminal joins our own to a container's.
type terminal struct {
	master *os.File
	saved  *unix.Termios // of our standard input, if that is a terminal
	output chan struct{} // closed when all output has been copied
}

// attach takes the master over and begins to copy. Our own terminal becomes raw: the container's does the rest.
func (t *terminal) attach(master *os.File) error {
	t.master, t.output = master, make(chan struct{})
	if saved, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		t.saved = saved
		raw := *saved
		makeRaw(&raw)
		if err := unix.IoctlSetTermios(0, unix.TCSETS, &raw); err != nil {
			return err
		}
	}
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	go func() {
		_, _ = io.Copy(os.Stdout, master) // ends with EIO when the last slave is closed
		close(t.output)
	}()
	return nil
}

// makeRaw is cfmakeraw(3).
func makeRaw(t *unix.Termios) {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}

// ownSize is that of our own terminal, which a redirected standard stream does not tell.
func ownSize() (size *unix.Winsize, err error) {
	for _, fd := range []int{0, 1, 2} {
		if size, err = unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			return size, nil
		}
	}
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
}

// resize gives the container's terminal the size of ours.
func (t *terminal) resize() {
	if t.master == nil {
		return
	}
	if size, err := ownSize(); err == nil {
		if raw, err := t.master.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
		}
	}
}

// drain copies what is left, but does not wait for processes that were left behind and hold the terminal.
func (t *terminal) drain() {
	if t.master == nil {
		return
	}
	select {
	case <-t.output:
	case <-time.After(100 * time.Millisecond):
		_ = t.master.SetReadDeadline(time.Now())
		<-t.output
	}
}

func (t *terminal) restore() {
	if t.saved != nil {
		_ = unix.IoctlSetTermios(0, unix.TCSETS, t.saved)
	}
}

// setConsoleSize makes the terminal begin with the size of ours, so that the program never sees another.
func setConsoleSize(p *specs.Process) {
	if size, err := ownSize(); err == nil && p.ConsoleSize == nil && size.Row > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(size.Row), Width: uint(size.Col)}
	}
}
