package cri

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	"k8s.io/utils/exec"
)

// wantsV5: the client asks for v5.channel.k8s.io, the first WebSocket protocol that can close stdin alone.
func wantsV5(r *http.Request) bool { return wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) }

// serveV5 serves an exec or an attachment. The channels are those of v4; the library knows the message that closes one.
func (s *Streaming) serveV5(w http.ResponseWriter, r *http.Request, x session) {
	kind := func(wanted bool, t wsstream.ChannelType) wsstream.ChannelType {
		if wanted {
			return t
		}
		return wsstream.IgnoreChannel
	}
	ws := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{remotecommand.StreamProtocolV5Name: {Binary: true, Channels: []wsstream.ChannelType{
		remotecommand.StreamStdIn:  kind(x.Stdin, wsstream.ReadChannel),
		remotecommand.StreamStdOut: kind(x.Stdout, wsstream.WriteChannel),
		remotecommand.StreamStdErr: kind(x.Stderr, wsstream.WriteChannel),
		remotecommand.StreamErr:    wsstream.WriteChannel,
		remotecommand.StreamResize: wsstream.ReadChannel,
	}}})
	ws.SetIdleTimeout(s.idle)
	_, ch, err := ws.Open(w, r)
	if err != nil {
		s.log.Info("upgrade to WebSocket", "err", err)
		return
	}
	defer func() { _ = ws.Close() }()
	_, _ = ch[remotecommand.StreamErr].Write(nil) // tells the client that the session has begun
	sizes := make(chan remotecommand.TerminalSize)
	go func() {
		defer close(sizes)
		for d := json.NewDecoder(ch[remotecommand.StreamResize]); ; {
			var size remotecommand.TerminalSize
			if d.Decode(&size) != nil {
				return
			}
			select {
			case sizes <- size:
			case <-r.Context().Done():
				return
			}
		}
	}()
	err = x.run(r.Context(), x.streams(ch[remotecommand.StreamStdIn], ch[remotecommand.StreamStdOut], ch[remotecommand.StreamStdErr], sizes))
	if err != nil {
		s.log.Debug("session ended", "err", err)
	}
	_, _ = ch[remotecommand.StreamErr].Write(verdict(err))
}

// verdict is a session's end as clients since v4 read it: a meta/v1 Status.
func verdict(err error) []byte {
	type cause struct {
		Type    string `json:"reason"`
		Message string `json:"message"`
	}
	type details struct {
		Causes []cause `json:"causes"`
	}
	v := struct {
		Status  string   `json:"status"`
		Message string   `json:"message,omitempty"`
		Reason  string   `json:"reason,omitempty"`
		Details *details `json:"details,omitempty"`
		Code    int      `json:"code,omitempty"`
	}{Status: "Success"}
	var exit exec.CodeExitError
	switch {
	case errors.As(err, &exit):
		v.Status, v.Reason = "Failure", remotecommand.NonZeroExitCodeReason
		v.Message = fmt.Sprintf("command terminated with non-zero exit code: %v", exit)
		v.Details = &details{[]cause{{remotecommand.ExitCodeCauseType, strconv.Itoa(exit.Code)}}}
	case err != nil:
		v.Status, v.Reason, v.Code = "Failure", "InternalError", http.StatusInternalServerError
		v.Message = fmt.Sprintf("Internal error occurred: %v", err)
	}
	b, _ := json.Marshal(v) // strings and numbers
	return b
}

// tunnelProtocol is the WebSocket protocol whose messages are the bytes of a SPDY connection for port forwarding.
const tunnelProtocol = portforward.WebsocketsSPDYTunnelingPortForwardV1

func wantsTunnel(r *http.Request) bool {
	if !wsstream.IsWebSocketRequest(r) {
		return false
	}
	for p := range strings.SplitSeq(r.Header.Get(wsstream.WebSocketProtocolHeader), ",") {
		if strings.TrimSpace(p) == tunnelProtocol {
			return true
		}
	}
	return false
}

// serveTunnel gives the library's SPDY handler the inside of a WebSocket connection.
func (s *Streaming) serveTunnel(w http.ResponseWriter, r *http.Request, pod string, f forwarder) {
	inner := r.Clone(r.Context())
	inner.Header = http.Header{
		httpstream.HeaderConnection:      {httpstream.HeaderUpgrade},
		httpstream.HeaderUpgrade:         {spdy.HeaderSpdy31},
		httpstream.HeaderProtocolVersion: {portforward.ProtocolV1Name},
	}
	websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error { c.Protocol = []string{tunnelProtocol}; return nil },
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			portforward.ServePortForward(tunnel{ws, http.Header{}}, inner, f, pod, "", nil, s.idle, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
		},
	}.ServeHTTP(w, r)
}

// tunnel is the ResponseWriter of a request that was upgraded before it was made: the answer to it is not sent.
type tunnel struct {
	conn   *websocket.Conn
	header http.Header
}

func (t tunnel) Header() http.Header         { return t.header }
func (t tunnel) WriteHeader(int)             {}
func (t tunnel) Write(b []byte) (int, error) { return len(b), nil }

func (t tunnel) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}
