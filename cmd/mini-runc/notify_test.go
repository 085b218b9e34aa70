// The agent of these tests reads what the kernel asks by libseccomp, which is C.

//go:build cgo

package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// agent is a seccomp agent as runtime-spec has it: it is handed listeners and answers what they are asked.
type agent struct {
	t      *testing.T
	states chan specs.ContainerProcessState
}

// answer lets every system call that it is asked about fail with an errno that nobody else gives.
const answer = unix.EL2HLT

func listen(t *testing.T, path string) *agent {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	a := &agent{t, make(chan specs.ContainerProcessState, 8)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			a.take(conn.(*net.UnixConn))
		}
	}()
	return a
}

// take receives one listener with the state of its process. The state is larger than what one message carries.
func (a *agent) take(conn *net.UnixConn) {
	defer conn.Close()
	text, oob := make([]byte, 4096), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		a.t.Error(err)
		return
	}
	all := append([]byte(nil), text[:n]...)
	for err == nil {
		n, err = conn.Read(text)
		all = append(all, text[:n]...)
	}
	var s specs.ContainerProcessState
	if err := json.Unmarshal(all, &s); err != nil {
		a.t.Errorf("state %q: %v", all, err)
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(cmsgs) != 1 {
		a.t.Errorf("%d control messages, %v", len(cmsgs), err)
		return
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	if err != nil || len(fds) != 1 {
		a.t.Errorf("%d descriptors, %v", len(fds), err)
		return
	}
	go serve(fds[0])
	a.states <- s
}

// serve answers until the last process under the filter has gone.
func serve(fd int) {
	defer unix.Close(fd)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 1000); n == 0 || err != nil {
			continue
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return
		}
		req, err := lib.NotifReceive(lib.ScmpFd(fd))
		if err == nil {
			_ = lib.NotifRespond(lib.ScmpFd(fd), &lib.ScmpNotifResp{ID: req.ID, Error: int32(answer)})
		}
	}
}

func (a *agent) next() specs.ContainerProcessState {
	a.t.Helper()
	select {
	case s := <-a.states:
		return s
	case <-time.After(patience):
		a.t.Fatal("no listener came")
		panic("not reached")
	}
}

// TestSeccompAgent: the agent is given the listener and the state of create, run and exec, and its answer is what the
// program hears.
func TestSeccompAgent(t *testing.T) {
	for _, nnp := range []bool{true, false} { // the filter is loaded before, or after the user changes
		b := newBundle(t, "busybox mkdir /tmp/x 2> /dev/stdout; exec busybox sleep 1000")
		a := listen(t, filepath.Join(b.dir, "agent.sock"))
		b.spec.Annotations = map[string]string{"a": strings.Repeat("x", 1<<20)}
		b.spec.Process.NoNewPrivileges = nnp
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: filepath.Join(b.dir, "agent.sock"), ListenerMetadata: "meta",
			Flags:    []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv, specs.LinuxSeccompFlagLog},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
		b.write()
		out := filepath.Join(b.dir, "output")
		f, err := os.Create(out)
		must(t, err)
		defer f.Close()
		create := b.command("create", "x")
		create.Stdout, create.Stderr = f, f
		if err := create.Run(); err != nil {
			text, _ := os.ReadFile(out)
			t.Fatalf("create: %v: %s", err, text)
		}
		pid := b.pid("x")
		check := func(s specs.ContainerProcessState, pid, of int, status specs.ContainerState) {
			t.Helper()
			if s.Version != specs.Version || len(s.Fds) != 1 || s.Fds[0] != specs.SeccompFdName || s.Pid != pid || s.Metadata != "meta" ||
				s.State.Version != specs.Version || s.State.ID != "x" || s.State.Pid != of || s.State.Status != status || s.State.Bundle != b.dir || len(s.State.Annotations["a"]) != 1<<20 {
				s.State.Annotations = nil
				t.Errorf("state %+v, want pid %d in %d, %s", s, pid, of, status)
			}
		}
		check(a.next(), pid, pid, specs.StateCreating)
		b.ok("start", "x")
		const denied = "mkdir: can't create directory '/tmp/x': Level 2 halted\n"
		waitText(t, out, denied)
		p := *b.spec.Process
		p.Args = []string{"sh", "-c", "busybox mkdir /tmp/x 2> /dev/null; exec busybox sleep 500"}
		exec := b.execDetached(p)
		check(a.next(), exec, pid, specs.StateRunning)
		if r := b.mini("exec", "x", "busybox", "mkdir", "/tmp/x"); r.err != denied {
			t.Errorf("%+v", r)
		}
		a.next()
		b.ok("delete", "-f", "x")
		must(t, os.Remove(filepath.Join(b.dir, "agent.sock")))
		b.fails("agent.sock", "run", "x")
		b.nothingLeft()
	}
}
