package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notify passes the readiness of a container's program on to the service manager that has started this call
// (sd_notify(3)). The container gets a socket of its own at /run/notify: what it says reaches the service manager
// only as READY, with the process to watch. Between create and start nobody listens, so the socket is made by start.
type notify struct {
	host string // the service manager's socket; it may begin with @
	path string // ours, in the container's directory
	conn *net.UnixConn
}

const (
	notifyDir  = "/run/notify" // in the container
	notifyName = "notify.sock"
)

// newNotify is nil where no service manager has asked.
func newNotify(root, id string) *notify {
	host := os.Getenv("NOTIFY_SOCKET")
	if host == "" {
		return nil
	}
	return &notify{host: host, path: filepath.Join(root, id, "notify", notifyName)}
}

// describe has the specification show the socket to the program.
func (n *notify) describe(spec *specs.Spec) {
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: notifyDir, Source: filepath.Dir(n.path), Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	spec.Process.Env = append(spec.Process.Env, "NOTIFY_SOCKET="+notifyDir+"/"+notifyName)
}

// prepare makes the directory that is bound into the container, and the socket if the program runs at once.
func (n *notify) prepare(listen bool) error {
	err := os.Mkdir(filepath.Dir(n.path), 0o755)
	if err == nil {
		err = os.Chmod(filepath.Dir(n.path), 0o755)
	}
	if err == nil && listen {
		err = n.listen()
	}
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}

func (n *notify) listen() (err error) {
	if n.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"}); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	if err = os.Chmod(n.path, 0o777); err != nil { // whoever the program is
		n.close()
	}
	return err
}

func (n *notify) close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
}

// forward waits until the program says that it is ready, or has ended, and tells the service manager which process to
// watch from then on.
func (n *notify) forward(ctx context.Context, pid, mainPID int) error {
	if n.conn == nil {
		return nil
	}
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		_ = n.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		k, err := n.conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if ended(pid) {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("NOTIFY_SOCKET: %w", err)
		}
		for line := range bytes.SplitSeq(buf[:k], []byte("\n")) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				return n.tell(line, mainPID)
			}
		}
	}
	return nil
}

// ended takes a zombie for what it is: the program may be our child, and be waited for by nobody.
func ended(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	i := bytes.LastIndexByte(text, ')') // the name before may hold anything (proc_pid_stat(5))
	return err != nil || i < 0 || bytes.HasPrefix(text[i:], []byte(") Z"))
}

func (n *notify) tell(ready []byte, mainPID int) error {
	host, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.host, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer func() { _ = host.Close() }()
	for _, word := range []string{string(ready) + "\n", fmt.Sprintf("MAINPID=%d\n", mainPID)} {
		if _, err := host.Write([]byte(word)); err != nil {
			return fmt.Errorf("NOTIFY_SOCKET: %w", err)
		}
	}
	return barrier(host)
}

// barrier waits until the service manager has read what was sent: it closes the pipe then (sd_notify_barrier(3)). It
// may know no barriers; after half a minute that is taken to be so.
func barrier(host *net.UnixConn) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	raw, err := host.SyscallConn()
	if err == nil { // net sends no descriptors over a datagram socket that is connected
		var sendErr error
		err = raw.Control(func(fd uintptr) {
			sendErr = unix.Sendmsg(int(fd), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, unix.MSG_NOSIGNAL)
		})
		err = errors.Join(err, sendErr)
	}
	w.Close()
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	_ = r.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, _ = r.Read(make([]byte, 1))
	return nil
}
