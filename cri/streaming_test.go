package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"

	"github.com/cri-mini/cri-mini/sandbox"
	"github.com/cri-mini/cri-mini/test/stream"
)

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // the library's words about clients that die
	os.Exit(m.Run())
}

// pods stands in for the sandbox manager: no container is needed for what this package does.
type pods struct {
	exec    func(ctx context.Context, tty bool, s sandbox.Streams) (int, error)
	forward func(ctx context.Context, port uint16, client io.ReadWriteCloser) error
}

func (pods) MayExec(id string, _ []string) error { return known(id) }
func (pods) MayAttach(id string) error           { return known(id) }
func (pods) MayForward(id string) error          { return known(id) }

func known(id string) error {
	if id != "known" {
		return sandbox.ErrNotFound
	}
	return nil
}

func (p pods) Exec(ctx context.Context, _ string, _ []string, tty bool, s sandbox.Streams) (int, error) {
	return p.exec(ctx, tty, s)
}

func (p pods) Attach(ctx context.Context, _ string, s sandbox.Streams) error {
	_, err := p.exec(ctx, false, s)
	return err
}

func (p pods) Forward(ctx context.Context, _ string, port uint16, client io.ReadWriteCloser) error {
	return p.forward(ctx, port, client)
}

func serveStreams(t *testing.T, p pods) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	st, err := NewStreaming(l.Addr(), p, time.Minute, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = st.Serve(l.(*net.TCPListener)) }()
	t.Cleanup(st.Close)
	return &Server{Streaming: st}
}

// begin asks for an exec and goes there.
func begin(t *testing.T, s *Server, p stream.Protocol, w stream.Want) *stream.Session {
	t.Helper()
	r, err := s.Exec(t.Context(), &criapi.ExecRequest{ContainerId: "known", Cmd: []string{"x"}, Stdin: w.Stdin, Stdout: w.Stdout, Stderr: w.Stderr, Tty: w.TTY})
	if err != nil {
		t.Fatal(err)
	}
	session, err := p(r.Url, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

func eachProtocol(t *testing.T, f func(t *testing.T, p stream.Protocol)) {
	for name, p := range stream.Protocols {
		t.Run(name, func(t *testing.T) { f(t, p) })
	}
}

// echo copies stdin to stdout, says bye on stderr and exits with 7.
func echo(_ context.Context, _ bool, s sandbox.Streams) (int, error) {
	if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
		return 0, err
	}
	_, err := io.WriteString(s.Stderr, "bye")
	return 7, err
}

var all = stream.Want{Stdin: true, Stdout: true, Stderr: true}

// talk has a whole session with echo.
func talk(x *stream.Session) error {
	defer x.Close() // at once, for the next 2000
	var told []byte
	var reading sync.WaitGroup
	reading.Go(func() { told, _ = io.ReadAll(io.LimitReader(x.Stderr, 3)) })
	if _, err := io.WriteString(x.Stdin, "hello"); err != nil {
		return err
	}
	if err := x.Stdin.Close(); err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(x.Stdout, 5))
	reading.Wait()
	code, waitErr := x.Wait()
	if err := errors.Join(err, waitErr); err != nil {
		return err
	}
	if string(said) != "hello" || string(told) != "bye" || code != 7 {
		return fmt.Errorf("%q %q, exit code %d", said, told, code)
	}
	return nil
}

func TestExecByEachProtocol(t *testing.T) {
	s := serveStreams(t, pods{exec: echo})
	eachProtocol(t, func(t *testing.T, p stream.Protocol) {
		if err := talk(begin(t, s, p, all)); err != nil {
			t.Error(err)
		}
	})
}

// TestExecByOldProtocols: clients of the last ten years.
func TestExecByOldProtocols(t *testing.T) {
	s := serveStreams(t, pods{exec: func(_ context.Context, _ bool, s sandbox.Streams) (int, error) {
		word := make([]byte, 5)
		if _, err := io.ReadFull(s.Stdin, word); err != nil { // not all of them can close stdin
			return 0, err
		}
		_, err := s.Stdout.Write(word)
		return 7, err
	}})
	protocols := map[string]stream.Protocol{}
	for _, name := range remotecommand.SupportedStreamingProtocols {
		protocols["SPDY "+name] = stream.SPDYOf(name)
	}
	for _, name := range []string{"channel.k8s.io", "base64.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"} {
		protocols["WebSocket "+name] = stream.WebSocketOf(name)
	}
	for name, p := range protocols {
		t.Run(name, func(t *testing.T) {
			x := begin(t, s, p, stream.Want{Stdin: true, Stdout: true})
			if _, err := io.WriteString(x.Stdin, "hello"); err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(io.LimitReader(x.Stdout, 5))
			if err != nil || string(said) != "hello" {
				t.Errorf("stdout %q, %v", said, err)
			}
			code, err := x.Wait()
			switch {
			case name == "SPDY channel.k8s.io": // the first one tells nothing of the end
			case strings.Contains(name, "v4"):
				if code != 7 || err != nil {
					t.Errorf("ended with %d, %v", code, err)
				}
			case err == nil || !strings.Contains(err.Error(), "exit code 7"):
				t.Errorf("ended with %d, %v", code, err)
			}
		})
	}
}

func TestErrorsReachTheClient(t *testing.T) {
	s := serveStreams(t, pods{exec: func(context.Context, bool, sandbox.Streams) (int, error) {
		return 0, errors.New("op 9 exec: no such file")
	}})
	eachProtocol(t, func(t *testing.T, p stream.Protocol) {
		if _, err := begin(t, s, p, all).Wait(); err == nil || !strings.Contains(err.Error(), "op 9 exec: no such file") {
			t.Errorf("the session ended with %v", err)
		}
	})
}

func TestSizesReachTheTerminal(t *testing.T) {
	want := sandbox.WindowSize{Width: 132, Height: 43}
	s := serveStreams(t, pods{exec: func(_ context.Context, tty bool, s sandbox.Streams) (int, error) {
		for size := range s.Sizes {
			if size == want && tty && s.Stderr == nil {
				return 0, nil
			}
		}
		return 1, nil
	}})
	eachProtocol(t, func(t *testing.T, p stream.Protocol) {
		x := begin(t, s, p, stream.Want{Stdin: true, Stdout: true, TTY: true})
		if err := errors.Join(x.Resize(80, 24), x.Resize(want.Width, want.Height)); err != nil {
			t.Fatal(err)
		}
		if code, err := x.Wait(); code != 0 || err != nil {
			t.Errorf("ended with %d, %v", code, err)
		}
	})
}

// TestHangUpEndsTheSession while nobody reads what the client has sent, with room for its end of file behind it or not.
func TestHangUpEndsTheSession(t *testing.T) {
	why := make(chan error, 1)
	s := serveStreams(t, pods{exec: func(ctx context.Context, _ bool, _ sandbox.Streams) (int, error) {
		<-ctx.Done()
		why <- context.Cause(ctx)
		return 0, nil
	}})
	eachProtocol(t, func(t *testing.T, p stream.Protocol) {
		for _, blocks := range []int{0, 1, 100000} {
			x := begin(t, s, p, all)
			_ = x.Conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			block, err := make([]byte, 32<<10), error(nil)
			for i := 0; i < blocks && err == nil; i++ {
				_, err = x.Stdin.Write(block) // until the connection is full
			}
			select {
			case err := <-why:
				t.Fatalf("the session ended before the hang-up: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			_ = x.Conn.Close()
			select {
			case <-why:
			case <-time.After(time.Minute):
				t.Errorf("a minute after the hang-up with %d blocks unread the session goes on", blocks)
			}
		}
	})
}

// TestExitCodeBehindUnreadInput: closing a socket with unread input must not cost the client the exit code.
func TestExitCodeBehindUnreadInput(t *testing.T) {
	s := serveStreams(t, pods{exec: func(context.Context, bool, sandbox.Streams) (int, error) {
		time.Sleep(50 * time.Millisecond)
		return 3, nil
	}})
	eachProtocol(t, func(t *testing.T, p stream.Protocol) {
		for range 20 {
			x := begin(t, s, p, all)
			go func() {
				for block := make([]byte, 32<<10); ; {
					if _, err := x.Stdin.Write(block); err != nil {
						return
					}
				}
			}()
			if code, err := x.Wait(); code != 3 || err != nil {
				t.Fatalf("ended with %d, %v", code, err)
			}
		}
	})
}

// TestSessionsLeaveNoGoroutine: 2000 of them, every tenth by a client that dies in the middle.
func TestSessionsLeaveNoGoroutine(t *testing.T) {
	s := serveStreams(t, pods{exec: echo, forward: func(_ context.Context, _ uint16, c io.ReadWriteCloser) error {
		_, err := io.Copy(c, c)
		return err
	}})
	run := func(i int) error {
		if i%3 == 2 {
			return forwardOnce(t, s, i)
		}
		x := begin(t, s, []stream.Protocol{stream.SPDY, stream.WebSocket}[i%3], all)
		if i%10 == 0 {
			_, err := io.WriteString(x.Stdin, "half a")
			_ = x.Conn.Close()
			x.Close()
			return err
		}
		return talk(x)
	}
	if err := errors.Join(run(1), run(2), run(3)); err != nil {
		t.Fatal(err)
	}
	before := settledGoroutines(0)
	const sessions, together = 2000, 20
	var workers sync.WaitGroup
	for w := range together {
		workers.Go(func() {
			for i := w; i < sessions; i += together {
				if err := run(i); err != nil {
					t.Errorf("session %d: %v", i, err)
					return
				}
			}
		})
	}
	workers.Wait()
	if after := settledGoroutines(before); after > before {
		stacks := make([]byte, 64<<10)
		t.Errorf("%d goroutines before, %d after:\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
	}
	h := s.Streaming.hangups
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.watched); n != 0 {
		t.Errorf("%d connections are still watched", n)
	}
}

func forwardOnce(t *testing.T, s *Server, i int) error {
	r, err := s.PortForward(t.Context(), &criapi.PortForwardRequest{PodSandboxId: "known"})
	if err != nil {
		return err
	}
	begin := stream.Forwards["SPDY"]
	if i%2 == 0 {
		begin = stream.Forwards["WebSocket"]
	}
	f, err := begin(r.Url)
	if err != nil {
		return err
	}
	defer f.Close()
	data, _, err := f.Dial(80)
	if err != nil {
		return err
	}
	if i%10 == 5 {
		return f.Conn.Close()
	}
	if _, err := io.WriteString(data, "hello"); err != nil {
		return err
	}
	if err := data.Close(); err != nil {
		return err
	}
	if got, err := io.ReadAll(data); err != nil || string(got) != "hello" {
		return fmt.Errorf("port answers %q, %w", got, err)
	}
	return nil
}

// settledGoroutines waits, at most a minute, until there are no more than want, or with 0 until their number rests. The
// library waits half a minute for the second of a forwarded connection's streams, also when the client has gone.
func settledGoroutines(want int) int {
	n := runtime.NumGoroutine()
	for end := time.Now().Add(2 * remotecommand.DefaultStreamCreationTimeout); time.Now().Before(end); {
		time.Sleep(200 * time.Millisecond)
		now := runtime.NumGoroutine()
		if want > 0 && now <= want || want == 0 && now == n {
			return now
		}
		n = now
	}
	return n
}

func TestTicketIsGoodOnce(t *testing.T) {
	s := serveStreams(t, pods{exec: echo})
	r, err := s.Exec(t.Context(), &criapi.ExecRequest{ContainerId: "known", Cmd: []string{"x"}, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{http.StatusBadRequest, http.StatusNotFound} { // the first is no upgrade
		resp, err := http.Get(r.Url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if (resp.StatusCode == http.StatusNotFound) != (want == http.StatusNotFound) {
			t.Errorf("use %d answers %s", i+1, resp.Status)
		}
	}
}

func TestTicketsExpireAndAreBounded(t *testing.T) {
	var open tickets
	h := func(http.ResponseWriter, *http.Request) {}
	for i := range maxTickets {
		if _, ok := open.issue(h); !ok {
			t.Fatalf("ticket %d of %d is refused", i+1, maxTickets)
		}
	}
	if _, ok := open.issue(h); ok {
		t.Errorf("more than %d tickets wait", maxTickets)
	}
	for name := range open.open {
		open.open[name] = ticket{h, time.Now().Add(-time.Second)}
	}
	for name := range open.open {
		if open.redeem(name) != nil {
			t.Error("an expired ticket is good")
		}
		break
	}
	if name, ok := open.issue(h); !ok || open.redeem(name) == nil || open.redeem(name) != nil || len(open.open) != 0 {
		t.Errorf("after all have expired: issued %v, %d wait", ok, len(open.open))
	}
}

func TestStreamRequestsThatAreRefused(t *testing.T) {
	s := serveStreams(t, pods{})
	exec := func(r *criapi.ExecRequest) error { _, err := s.Exec(t.Context(), r); return err }
	attach := func(r *criapi.AttachRequest) error { _, err := s.Attach(t.Context(), r); return err }
	forward := func(r *criapi.PortForwardRequest) error { _, err := s.PortForward(t.Context(), r); return err }
	for _, x := range []struct {
		name string
		err  error
		code codes.Code
	}{
		{"exec with tty and stderr", exec(&criapi.ExecRequest{ContainerId: "known", Tty: true, Stderr: true}), codes.InvalidArgument},
		{"exec without streams", exec(&criapi.ExecRequest{ContainerId: "known"}), codes.InvalidArgument},
		{"exec in an unknown container", exec(&criapi.ExecRequest{ContainerId: "other", Stdout: true}), codes.NotFound},
		{"attach with tty and stderr", attach(&criapi.AttachRequest{ContainerId: "known", Tty: true, Stderr: true}), codes.InvalidArgument},
		{"attach without streams", attach(&criapi.AttachRequest{ContainerId: "known"}), codes.InvalidArgument},
		{"attach to an unknown container", attach(&criapi.AttachRequest{ContainerId: "other", Stdout: true}), codes.NotFound},
		{"a port of an unknown pod", forward(&criapi.PortForwardRequest{PodSandboxId: "other"}), codes.NotFound},
		{"port 0", forward(&criapi.PortForwardRequest{PodSandboxId: "known", Port: []int32{0}}), codes.InvalidArgument},
		{"port 65536", forward(&criapi.PortForwardRequest{PodSandboxId: "known", Port: []int32{80, 65536}}), codes.InvalidArgument},
	} {
		if x.err == nil || code(x.err) != x.code {
			t.Errorf("%s: %v, want %s", x.name, x.err, x.code)
		}
	}
}
