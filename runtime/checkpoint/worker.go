package checkpoint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"
)

// Call is one request to a worker.
type Call struct {
	Request *rpc.CriuReq
	// Inherit are the standard streams of the worker, and so of a restored container whose own were pipes.
	Inherit [3]*os.File
	// Files are open in the worker from descriptor 4 on.
	Files []*os.File
	// Started is called with the worker's pid before the request is sent. May be nil.
	Started func(pid int) error
	// Step hears of each step that criu reports; fd is a descriptor that came with it, or -1, and is the receiver's.
	Step func(script string, pid, fd int) error
}

// ErrMissing: the machine has no criu.
var ErrMissing = errors.New("criu is not installed")

// Version is that of the criu that there is, as 31701 for 3.17.1. An error says in words why it cannot be used.
func Version() (int, error) {
	t := rpc.CriuReqType_VERSION
	resp, err := (&Call{Request: &rpc.CriuReq{Type: &t}}).Run()
	if err != nil {
		return 0, err
	}
	v := resp.GetVersion()
	return int(v.GetMajorNumber())*10000 + int(v.GetMinorNumber())*100 + int(v.GetSublevel()), nil
}

// Run starts a worker and returns its answer when it has ended.
func (c *Call) Run() (*rpc.CriuResp, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket for criu: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "criu"), os.NewFile(uintptr(fds[1]), "criu worker")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("make socket for criu: %w", err)
	}
	defer conn.Close()
	cmd := exec.Command(path, "swrk", "3")
	cmd.ExtraFiles = append([]*os.File{theirs}, c.Files...)
	said := c.streams(cmd)
	err = cmd.Start()
	theirs.Close() // a worker that dies is an end of file then
	if err != nil {
		return nil, fmt.Errorf("start criu: %w", err)
	}
	resp, err := c.talk(conn.(*net.UnixConn), cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	_ = conn.Close()
	// The process alone is waited for: what was restored holds its streams.
	state, waitErr := cmd.Process.Wait()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("criu has ended without an answer (%v)%s", state, lastLine(said()))
	case err != nil:
		return nil, err
	case waitErr != nil:
		return nil, fmt.Errorf("wait for criu: %w", waitErr)
	}
	return resp, nil
}

// streams connects the worker's standard streams. Without ones to inherit, what it says is kept to be told.
func (c *Call) streams(cmd *exec.Cmd) (said func() []byte) {
	for i, to := range []any{&cmd.Stdin, &cmd.Stdout, &cmd.Stderr} {
		f := c.Inherit[i]
		if f == nil {
			continue
		}
		switch to := to.(type) {
		case *io.Reader:
			*to = f
		case *io.Writer:
			*to = f
		}
	}
	said = func() []byte { return nil }
	if c.Inherit[2] != nil {
		return said
	}
	// A file, not a pipe: nobody has to read it while the worker runs.
	fd, err := unix.MemfdCreate("criu said", unix.MFD_CLOEXEC)
	if err != nil {
		return said
	}
	f := os.NewFile(uintptr(fd), "criu said")
	cmd.Stdout, cmd.Stderr = f, f
	return func() []byte {
		defer f.Close()
		text, _ := io.ReadAll(io.NewSectionReader(f, 0, 64<<10))
		return text
	}
}

// lastLine is what a program that failed has to say, as a rule.
func lastLine(text []byte) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if last := string(bytes.TrimSpace(lines[len(lines)-1])); last != "" {
		return ": " + last
	}
	return ""
}

// talk sends the request and answers the worker's steps until its own answer comes.
func (c *Call) talk(conn *net.UnixConn, pid int) (*rpc.CriuResp, error) {
	if c.Started != nil {
		if err := c.Started(pid); err != nil {
			return nil, err
		}
	}
	if err := send(conn, c.Request); err != nil {
		return nil, err
	}
	buf, oob := make([]byte, 64<<10), make([]byte, 4096)
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if errors.Is(err, unix.ECONNRESET) {
			err = io.EOF
		}
		if err != nil {
			return nil, err
		}
		resp := &rpc.CriuResp{}
		if err := resp.UnmarshalVT(buf[:n]); err != nil {
			return nil, fmt.Errorf("read answer of criu: %w", err)
		}
		if !resp.GetSuccess() {
			return nil, refusal(resp)
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			return resp, nil
		}
		if err := c.step(resp.GetNotify(), oob[:oobn]); err != nil {
			return nil, err
		}
		t, yes := rpc.CriuReqType_NOTIFY, true
		if err := send(conn, &rpc.CriuReq{Type: &t, NotifySuccess: &yes}); err != nil {
			return nil, err
		}
	}
}

func refusal(resp *rpc.CriuResp) error {
	words := fmt.Sprintf("criu failed: type %s errno %d", resp.GetType(), resp.GetCrErrno())
	if m := resp.GetCrErrmsg(); m != "" {
		words += ": " + strings.TrimSpace(m)
	}
	return errors.New(words)
}

func send(conn *net.UnixConn, req *rpc.CriuReq) error {
	text, err := req.MarshalVT()
	if err == nil {
		_, err = conn.Write(text)
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("send request to criu: %w", err)
	}
	return nil
}

func (c *Call) step(n *rpc.CriuNotify, oob []byte) error {
	fd := -1
	if cmsgs, err := unix.ParseSocketControlMessage(oob); err == nil && len(cmsgs) > 0 {
		fds, err := unix.ParseUnixRights(&cmsgs[0])
		for i, f := range fds {
			if i == 0 && err == nil {
				fd = f
				unix.CloseOnExec(f)
			} else {
				_ = unix.Close(f)
			}
		}
	}
	if c.Step == nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil
	}
	return c.Step(n.GetScript(), int(n.GetPid()), fd)
}

// Quote gives the lines of a log of criu's that say what went wrong, in one line.
func Quote(dir, name string) string {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if _, text, ok := strings.Cut(s.Text(), "Error "); ok && len(lines) < 5 {
			lines = append(lines, strings.TrimSpace(text))
		}
	}
	if len(lines) == 0 {
		return "see " + f.Name()
	}
	return strings.Join(lines, "; ") + " (see " + f.Name() + ")"
}
