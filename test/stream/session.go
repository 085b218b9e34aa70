package stream

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// Want says which streams a session has. A terminal has no Stderr and takes sizes.
type Want struct{ Stdin, Stdout, Stderr, TTY bool }

// Session is one exec or attachment. Every output must be read in the end: the streams share a connection.
type Session struct {
	Stdin          io.WriteCloser
	Stdout, Stderr io.Reader
	status         io.Reader
	sizes          io.Writer
	close          func()
	// Conn is the connection below: closing it is what the death of the client does.
	Conn net.Conn
}

// Protocol begins a session at the URL that the runtime answered.
type Protocol func(url string, w Want) (*Session, error)

// Protocols are those that today's clients speak.
var Protocols = map[string]Protocol{"SPDY": SPDY, "WebSocket": WebSocket}

// SPDY is v4.channel.k8s.io.
func SPDY(url string, w Want) (*Session, error) {
	return SPDYOf(remotecommand.StreamProtocolV4Name)(url, w)
}

// SPDYOf is a version of the protocol. Those before v4 tell of an error in plain words, those before v3 take no sizes.
func SPDYOf(version string) Protocol {
	return func(url string, w Want) (*Session, error) { return spdySession(version, url, w) }
}

func spdySession(version, url string, w Want) (*Session, error) {
	conn, below, err := dialSPDY(url, version)
	if err != nil {
		return nil, err
	}
	s := &Session{Conn: below, close: func() { _ = conn.Close() }}
	for _, x := range []struct {
		name   string
		wanted bool
		set    func(httpstream.Stream)
	}{
		{remotecommand.StreamTypeError, true, func(st httpstream.Stream) { s.status = st }},
		{remotecommand.StreamTypeStdin, w.Stdin, func(st httpstream.Stream) { s.Stdin = st }},
		{remotecommand.StreamTypeStdout, w.Stdout, func(st httpstream.Stream) { s.Stdout = st }},
		{remotecommand.StreamTypeStderr, w.Stderr, func(st httpstream.Stream) { s.Stderr = st }},
		{remotecommand.StreamTypeResize, w.TTY && version >= remotecommand.StreamProtocolV3Name, func(st httpstream.Stream) { s.sizes = st }},
	} {
		if !x.wanted {
			continue
		}
		st, err := conn.CreateStream(http.Header{remotecommand.StreamType: {x.name}})
		if err != nil {
			s.close()
			return nil, fmt.Errorf("create stream %s: %w", x.name, err)
		}
		x.set(st)
	}
	return s, nil
}

// WebSocket is v5.channel.k8s.io.
func WebSocket(url string, w Want) (*Session, error) {
	return WebSocketOf(remotecommand.StreamProtocolV5Name)(url, w)
}

// WebSocketOf is a version of the protocol. Those before v5 cannot close stdin alone, those before v4 tell of an error in
// plain words, and those with base64 in their name are text.
func WebSocketOf(version string) Protocol {
	return func(url string, _ Want) (*Session, error) { return webSocketSession(version, url) }
}

func webSocketSession(version, url string) (*Session, error) {
	ws, below, err := dialWebSocket(url, version)
	if err != nil {
		return nil, err
	}
	code := binary
	if strings.Contains(version, "base64") {
		code = text
		ws.PayloadType = websocket.TextFrame
	}
	var frames [remotecommand.StreamErr + 1]chan []byte
	var readers [len(frames)]*io.PipeReader
	for i := range frames {
		frames[i] = make(chan []byte, framesAhead)
		readers[i] = drain(frames[i])
	}
	go func() {
		for {
			var frame []byte
			err := websocket.Message.Receive(ws, &frame)
			if err != nil {
				for _, ch := range frames {
					close(ch)
				}
				return
			}
			if n, data := code.decode(frame); len(data) > 0 && n < len(frames) {
				frames[n] <- data
			}
		}
	}()
	return &Session{
		Conn: below, Stdin: channel{ws, remotecommand.StreamStdIn, code}, sizes: channel{ws, remotecommand.StreamResize, code},
		Stdout: readers[remotecommand.StreamStdOut], Stderr: readers[remotecommand.StreamStdErr], status: readers[remotecommand.StreamErr],
		close: func() {
			_ = ws.Close()
			for _, r := range readers {
				_ = r.Close()
			}
		},
	}, nil
}

// framesAhead is how many of a WebSocket's frames may wait to be read in one channel before all of them wait.
const framesAhead = 16

// drain makes a reader of a channel's frames. When it is closed, they are swallowed.
func drain(frames <-chan []byte) *io.PipeReader {
	r, w := io.Pipe()
	go func() {
		for f := range frames {
			_, _ = w.Write(f)
		}
		_ = w.Close()
	}()
	return r
}

// coding is how a message says which channel it is of, and carries what is in it.
type coding struct {
	encode func(n byte, data []byte) []byte
	decode func(frame []byte) (n int, data []byte)
}

var binary = coding{
	func(n byte, data []byte) []byte { return append([]byte{n}, data...) },
	func(frame []byte) (int, []byte) {
		if len(frame) == 0 {
			return 0, nil
		}
		return int(frame[0]), frame[1:]
	},
}

// text is a digit, and base64.
var text = coding{
	func(n byte, data []byte) []byte {
		return append([]byte{'0' + n}, base64.StdEncoding.EncodeToString(data)...)
	},
	func(frame []byte) (int, []byte) {
		if len(frame) == 0 {
			return 0, nil
		}
		data, _ := base64.StdEncoding.DecodeString(string(frame[1:]))
		return int(frame[0] - '0'), data
	},
}

// channel is what one writes to of a WebSocket's.
type channel struct {
	ws *websocket.Conn
	n  byte
	coding
}

func (c channel) Write(b []byte) (int, error) {
	var err error
	if message := c.encode(c.n, b); c.ws.PayloadType == websocket.TextFrame {
		err = websocket.Message.Send(c.ws, string(message))
	} else {
		err = websocket.Message.Send(c.ws, message)
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close is v5's message that ends one channel.
func (c channel) Close() error {
	return websocket.Message.Send(c.ws, []byte{remotecommand.StreamClose, c.n})
}

// Resize tells the size of the client's window.
func (s *Session) Resize(width, height uint16) error {
	return json.NewEncoder(s.sizes).Encode(remotecommand.TerminalSize{Width: width, Height: height})
}

// Close lets go of the session. It waits for nothing.
func (s *Session) Close() { s.close() }

// Wait reads how the session has ended: the exit code of an exec, or an error with the words of the runtime. Outputs
// may still have something to read.
func (s *Session) Wait() (int, error) {
	b, err := io.ReadAll(s.status)
	if err != nil {
		return 0, fmt.Errorf("read status: %w", err)
	}
	var v struct {
		Status, Message, Reason string
		Details                 struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if len(b) == 0 || b[0] != '{' { // before v4: the words of an error, if there is one
		return 0, errors.New(string(b))
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return 0, fmt.Errorf("read status %q: %w", b, err)
	}
	switch {
	case v.Status == "Success":
		return 0, nil
	case v.Reason == remotecommand.NonZeroExitCodeReason && len(v.Details.Causes) == 1:
		return strconv.Atoi(v.Details.Causes[0].Message)
	}
	return 0, errors.New(v.Message)
}
