package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/utils/exec"

	"github.com/cri-mini/cri-mini/sandbox"
)

// Sessions is what exec, attach and port forwarding need of the pods.
type Sessions interface {
	MayExec(id string, cmd []string) error
	MayAttach(id string) error
	MayForward(id string) error
	Exec(ctx context.Context, id string, cmd []string, tty bool, s sandbox.Streams) (int, error)
	Attach(ctx context.Context, id string, s sandbox.Streams) error
	Forward(ctx context.Context, id string, port uint16, client io.ReadWriteCloser) error
}

// Streaming serves exec, attach and port forwarding. The RPC answers an URL with a ticket, with which the client, as a
// rule kubelet's proxy, comes over HTTP and switches to SPDY or to WebSocket.
//
// The handlers of k8s.io/cri-streaming speak the protocols. Its Server is not used: it keeps the request behind a ticket
// to itself, and what it lacks needs that: WebSocket v5 and SPDY through WebSocket, which today's clients ask for, and
// the end of a session whose client has hung up.
//
// Invariant: when the client's connection has gone, the session's context has ended; when the session has, its
// connection is closed.
type Streaming struct {
	pods    Sessions
	idle    time.Duration
	log     *slog.Logger
	base    string
	tickets tickets
	hangups *hangups
	server  *http.Server
}

// NewStreaming makes the server for one address. A connection without traffic is closed after idle.
func NewStreaming(addr net.Addr, pods Sessions, idle time.Duration, log *slog.Logger) (*Streaming, error) {
	s := &Streaming{pods: pods, idle: idle, log: log, base: "http://" + addr.String()}
	var err error
	if s.hangups, err = newHangups(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		mux.HandleFunc(method+" /{what}/{ticket}", s.serve)
	}
	s.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState: func(c net.Conn, st http.ConnState) {
			if c, ok := c.(*conn); ok && st == http.StateHijacked {
				c.upgraded.Store(true)
			}
		},
	}
	return s, nil
}

// Serve accepts connections until Close.
func (s *Streaming) Serve(l *net.TCPListener) error {
	go s.hangups.serve()
	go s.hangups.lookAtStalled()
	err := s.server.Serve(listener{l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve streams: %w", err)
}

// Close ends every session.
func (s *Streaming) Close() {
	_ = s.server.Close()
	s.hangups.close()
}

// serve redeems a ticket.
func (s *Streaming) serve(w http.ResponseWriter, r *http.Request) {
	h := s.tickets.redeem(r.PathValue("ticket"))
	c, ok := r.Context().Value(connKey{}).(*conn)
	if h == nil || !ok {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	forget, err := s.hangups.add(c, func() {
		cancel(errHungUp)
		_ = c.TCPConn.Close() // for what still writes
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer forget()
	h(w, r.WithContext(ctx))
	if c.upgraded.Load() {
		_ = c.Close() // where the library gave up, it left it open
	}
}

var errHungUp = errors.New("the client has hung up")

// session is an exec or an attachment: what its client asked for, and what is run with its streams.
type session struct {
	remotecommand.Options
	run func(context.Context, sandbox.Streams) error
}

// ExecInContainer runs an exec; see remotecommand.Executor.
func (x session) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, err io.WriteCloser, _ bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return x.run(ctx, x.streams(in, out, err, sizes))
}

// AttachContainer runs an attachment; see remotecommand.Attacher.
func (x session) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, err io.WriteCloser, _ bool, sizes <-chan remotecommand.TerminalSize) error {
	return x.run(ctx, x.streams(in, out, err, sizes))
}

// streams are those that the request asked for: WebSocket has a channel for the others too.
func (x session) streams(in io.Reader, out, err io.Writer, sizes <-chan remotecommand.TerminalSize) sandbox.Streams {
	var s sandbox.Streams
	if x.Stdin {
		s.Stdin = in
	}
	if x.Stdout {
		s.Stdout = out
	}
	if x.Stderr {
		s.Stderr = err
	}
	if sizes == nil {
		return s
	}
	s.Sizes = func(yield func(sandbox.WindowSize) bool) {
		for size := range sizes {
			if !yield(sandbox.WindowSize(size)) {
				return
			}
		}
	}
	return s
}

// exited words the end of a command as the protocols carry it. The library asserts the type of the error itself.
func exited(code int, err error) error {
	if err != nil || code == 0 {
		return err
	}
	return exec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
}

// Exec answers where a client may run a command.
func (s *Server) Exec(_ context.Context, r *criapi.ExecRequest) (*criapi.ExecResponse, error) {
	st := s.Streaming
	x := session{Options: remotecommand.Options{Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(), TTY: r.GetTty()}}
	if err := checkStreams(x.Options); err != nil {
		return nil, err
	}
	if err := st.pods.MayExec(r.GetContainerId(), r.GetCmd()); err != nil {
		return nil, err
	}
	x.run = func(ctx context.Context, streams sandbox.Streams) error {
		return exited(st.pods.Exec(ctx, r.GetContainerId(), r.GetCmd(), r.GetTty(), streams))
	}
	url, err := st.url("exec", func(w http.ResponseWriter, req *http.Request) {
		if wantsV5(req) {
			st.serveV5(w, req, x)
			return
		}
		remotecommand.ServeExec(w, req, x, "", "", r.GetContainerId(), r.GetCmd(), &x.Options, st.idle, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
	})
	return &criapi.ExecResponse{Url: url}, err
}

// Attach answers where a client may attach to a container.
func (s *Server) Attach(_ context.Context, r *criapi.AttachRequest) (*criapi.AttachResponse, error) {
	st := s.Streaming
	x := session{Options: remotecommand.Options{Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(), TTY: r.GetTty()}}
	if err := checkStreams(x.Options); err != nil {
		return nil, err
	}
	if err := st.pods.MayAttach(r.GetContainerId()); err != nil {
		return nil, err
	}
	x.run = func(ctx context.Context, streams sandbox.Streams) error {
		return st.pods.Attach(ctx, r.GetContainerId(), streams)
	}
	url, err := st.url("attach", func(w http.ResponseWriter, req *http.Request) {
		if wantsV5(req) {
			st.serveV5(w, req, x)
			return
		}
		remotecommand.ServeAttach(w, req, x, "", "", r.GetContainerId(), &x.Options, st.idle, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
	})
	return &criapi.AttachResponse{Url: url}, err
}

// checkStreams refuses what the CRI refuses (ExecRequest, AttachRequest).
func checkStreams(o remotecommand.Options) error {
	switch {
	case o.TTY && o.Stderr:
		return fmt.Errorf("stderr: a terminal has none, tty is set: %w", sandbox.ErrInvalid)
	case !o.Stdin && !o.Stdout && !o.Stderr:
		return fmt.Errorf("stdin, stdout, stderr: none is set: %w", sandbox.ErrInvalid)
	}
	return nil
}

// PortForward answers where a client may connect to ports of a pod.
func (s *Server) PortForward(_ context.Context, r *criapi.PortForwardRequest) (*criapi.PortForwardResponse, error) {
	st := s.Streaming
	if err := st.pods.MayForward(r.GetPodSandboxId()); err != nil {
		return nil, err
	}
	for i, p := range r.GetPort() {
		if p < 1 || p > 65535 {
			return nil, fmt.Errorf("port[%d]: %d is not between 1 and 65535: %w", i, p, sandbox.ErrInvalid)
		}
	}
	url, err := st.url("portforward", func(w http.ResponseWriter, req *http.Request) {
		f := forwarder(func(port int32, stream io.ReadWriteCloser) error {
			return st.pods.Forward(req.Context(), r.GetPodSandboxId(), uint16(port), stream)
		})
		if wantsTunnel(req) {
			st.serveTunnel(w, req, r.GetPodSandboxId(), f)
			return
		}
		portforward.ServePortForward(w, req, f, r.GetPodSandboxId(), "", &portforward.V4Options{Ports: r.GetPort()}, st.idle, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
	})
	return &criapi.PortForwardResponse{Url: url}, err
}

// forwarder is a portforward.PortForwarder. The library gives it a context that never ends; ours is the connection's.
type forwarder func(port int32, stream io.ReadWriteCloser) error

func (f forwarder) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	err := f(port, stream)
	if err != nil {
		// The library resets the streams of what failed, and it hands them over before the client is told that they are
		// accepted: a reset that comes first means that they are refused, and the client would not read why. A write waits
		// for the acceptance; an empty one is nothing to the client.
		_, _ = stream.Write(nil)
	}
	return err
}

// url gives out a ticket for a handler.
func (s *Streaming) url(what string, h http.HandlerFunc) (string, error) {
	t, ok := s.tickets.issue(h)
	if !ok {
		return "", status.Errorf(codes.ResourceExhausted, "%d sessions were asked for in the last minute and not begun", maxTickets)
	}
	return s.base + "/" + what + "/" + t, nil
}
