package engine

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// onExit takes a monitor's news. Of a process that it adopted we know better (see watchAdopted).
func (e *Engine) onExit(c *client, msg *wire.Message) {
	e.mu.Lock()
	p := e.procs[msg.ID]
	adopted := p != nil && p.adopted
	e.mu.Unlock()
	switch {
	case p == nil:
		c.tell(&wire.Message{Type: wire.TypeAck, ID: msg.ID})
	case adopted:
		select {
		case p.told <- msg:
		default:
		}
	default:
		e.end(p, exitOf(msg))
	}
}

// end records the end of a process once and tells whoever waits; containers' ends go to the Exits channel.
func (e *Engine) end(p *process, x Exit) {
	e.mu.Lock()
	if p.ended() {
		e.mu.Unlock()
		return
	}
	p.exit = x
	close(p.done)
	closeAll(p.streams)
	p.streams = nil
	if p.pidfd != nil {
		_ = p.pidfd.Close()
		p.pidfd = nil
	}
	p.dropStdin()
	tell := p.started
	e.mu.Unlock()
	if tell {
		e.exits <- x
	}
}

// announce makes the end of a container known from now on, at once if it has ended already.
func (e *Engine) announce(p *process) {
	e.mu.Lock()
	p.started = true
	ended := p.ended()
	e.mu.Unlock()
	if ended {
		e.exits <- p.exit
	}
}

func exitOf(msg *wire.Message) Exit {
	x := Exit{ID: msg.ID, Pod: msg.Pod, At: unixNano(msg.At), TimedOut: msg.TimedOut, Unknown: msg.Unknown, Dropped: msg.Dropped}
	x.setStatus(unix.WaitStatus(msg.Status))
	return x
}

// UnknownExit is the code of an exit that nobody saw, as CRI implementations report it.
const UnknownExit = 255

func (x *Exit) setStatus(st unix.WaitStatus) {
	switch {
	case x.Unknown:
		x.Code = UnknownExit
	case st.Signaled():
		x.Signal, x.Code = int(st.Signal()), 128+int(st.Signal())
	default:
		x.Code = st.ExitStatus()
	}
}

// learn takes one item of a monitor's list at Open.
func (e *Engine) learn(c *client, it answer) Known {
	m := it.msg
	if m.Kind == 0 {
		return Known{Pod: m.Pod} // a pod that the monitor serves
	}
	p := &process{id: m.ID, pod: m.Pod, kind: m.Kind, started: m.Kind == wire.Container, pid: m.PID, startTime: m.StartTime, client: c, done: make(chan struct{})}
	if len(it.fds) > 0 {
		p.tty = os.NewFile(uintptr(it.fds[0]), "tty")
	}
	k := Known{ID: m.ID, Pod: m.Pod, PID: m.PID, StartTime: m.StartTime, Running: !m.Exited}
	if m.Kind != wire.Container {
		k.ID = "" // execs of the old daemon, pause processes: nobody waits for them
		if m.Kind == wire.Exec && m.Exited {
			c.tell(&wire.Message{Type: wire.TypeAck, ID: m.ID})
			return k
		}
	}
	if m.Exited {
		p.exit = exitOf(m)
		close(p.done)
		k.Exit = p.exit
	} else if fd, err := unix.PidfdOpen(m.PID, 0); err == nil {
		p.pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	e.mu.Lock()
	e.procs[m.ID] = p
	e.mu.Unlock()
	return k
}

// Place tells the engine where a container's streams are, after Open: Recover of a monitor needs it.
func (e *Engine) Place(id, dir, log string) {
	e.mu.Lock()
	p := e.procs[id]
	if p != nil {
		p.dir, p.log = dir, log
		p.hold()
	}
	e.mu.Unlock()
	if p != nil {
		e.placeStdin(p)
	}
}

// hold keeps the output FIFOs of a container open until its end is told. What is in a FIFO is lost with the last one who
// has it open: the container's last words, if its monitor dies just before itself. Caller holds mu.
func (p *process) hold() {
	if p.dir == "" || p.streams != nil || p.ended() {
		return
	}
	for _, name := range []string{"stdout", "stderr"} { // none with a terminal
		if fd, err := unix.Open(filepath.Join(p.dir, name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
			p.streams = append(p.streams, fd)
		}
	}
}

// watchExec takes over an exec whose monitor has died, with its deadline.
func (e *Engine) watchExec(p *process) {
	var late atomic.Bool
	if !p.deadline.IsZero() {
		timer := time.AfterFunc(time.Until(p.deadline), func() {
			late.Store(true)
			linux.KillGroup(p.killDir)
			_ = e.Signal(p.id, unix.SIGKILL)
		})
		defer timer.Stop()
	}
	if x, ok := e.awaitOrphan(p); ok {
		x.TimedOut = late.Load()
		e.end(p, x)
	}
}

// toldLimit is how long the end of an adopted container waits for its monitor to have written its log.
const toldLimit = 2 * time.Second

// watchAdopted waits for the end of a container whose monitor has died. It is told when the log is complete.
func (e *Engine) watchAdopted(p *process) {
	x, ok := e.awaitOrphan(p)
	if !ok {
		return
	}
	select {
	case msg := <-p.told:
		x.Dropped = msg.Dropped
	case <-time.After(toldLimit):
	}
	e.end(p, x)
}

// awaitOrphan waits for a process whose parent, its monitor, has died. Either it has become our child, and we
// reap it, or init's, and since Linux 6.15 the pidfd keeps the status; on older kernels it is unknown then.
func (e *Engine) awaitOrphan(p *process) (Exit, bool) {
	fd, err := e.dupPidfd(p)
	for err != nil && !errors.Is(err, ErrGone) { // no descriptors; its end stays to be seen
		time.Sleep(rehomeRest)
		fd, err = e.dupPidfd(p)
	}
	if err != nil {
		return Exit{}, false
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, -1); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	x := Exit{ID: p.id, Pod: p.pod, At: time.Now()}
	st, ok := collect(fd)
	x.Unknown = !ok
	x.setStatus(st)
	return x, true
}

// collectLimit is how long a dying monitor is given to leave its children to us: a monitor's connection closes before that.
const collectLimit = 2 * time.Second

// collect reaps a process that has ended, or learns its status once another one has reaped it.
func collect(pidfd int) (unix.WaitStatus, bool) {
	for end := time.Now().Add(collectLimit); ; time.Sleep(time.Millisecond) {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG, nil); err == nil {
			if st, ok := linux.WaitStatus(&info); ok {
				return unix.WaitStatus(st), true
			}
		}
		reaped := errors.Is(unix.PidfdSendSignal(pidfd, 0, nil, 0), unix.ESRCH)
		if got, err := linux.PidfdInfo(pidfd); err == nil && got.Exited {
			return got.Status, true
		}
		if reaped || time.Now().After(end) {
			return 0, false
		}
	}
}
