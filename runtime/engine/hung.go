package engine

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// A monitor answers within a millisecond. One that was stopped by a signal or a debugger, or that hangs in a log's file
// system, holds up every container that it has: no start, no exec, no end of one is told. Killing it costs nothing that
// another one does not make good, so that is what happens to one that owes an answer for hungLimit.

const (
	// hungLimit is how long a monitor may owe an answer.
	hungLimit = 10 * time.Second
	// hungGrace is how long after that we look again: it may have been us who were stopped, with the answer in the socket.
	hungGrace = time.Second
)

// mindSilence kills the monitor unless the function that it returns is called in time.
func (c *client) mindSilence() (answered func()) {
	done := make(chan struct{})
	timer := time.AfterFunc(hungLimit, func() {
		select {
		case <-done:
		case <-c.dead:
		case <-time.After(hungGrace):
			c.putDown()
		}
	})
	return func() { timer.Stop(); close(done) }
}

// putDown kills the monitor and lets go of it.
func (c *client) putDown() {
	c.log.Error("monitor does not answer: it is killed, its containers run on and get another", "obj", filepath.Base(c.path), "took", hungLimit)
	killMonitor(c.path)
	_ = c.conn.Close()
}

// killMonitor kills the monitor that serves a socket. Who that is, nobody but its command line tells where it has not
// said hello.
func killMonitor(socket string) {
	names, _ := readNames("/proc")
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || !serves(pid, socket) {
			continue
		}
		pidfd, err := linux.PidfdOpen(pid)
		if err != nil {
			continue
		}
		if serves(pid, socket) { // still, so that the pidfd is that one's
			_ = linux.PidfdKill(int(pidfd.Fd()), unix.SIGKILL)
		}
		_ = pidfd.Close()
	}
}

func serves(pid int, socket string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && strings.HasSuffix(string(b), "\x00monitor\x00"+socket+"\x00")
}

// Prod finds out whether the monitor of a process that was killed, and should have been reported dead, is alive at all.
// If it is not, another one takes its place and tells.
func (e *Engine) Prod(ctx context.Context, id string) {
	e.mu.Lock()
	var c *client
	if p := e.procs[id]; p != nil && !p.ended() {
		c = p.client
	}
	e.mu.Unlock()
	if c != nil {
		_, _ = c.call(ctx, &wire.Message{Type: wire.TypePing}) // what it says does not matter
	}
}
