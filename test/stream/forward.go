package stream

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// Forwarding is one session of port forwarding, which makes any number of connections.
type Forwarding struct {
	conn httpstream.Connection
	next int
	// Conn is the connection below.
	Conn net.Conn
}

// Forwards begin port forwarding by each protocol of today's clients.
var Forwards = map[string]func(url string) (*Forwarding, error){"SPDY": forwardSPDY, "WebSocket": forwardTunnel}

func forwardSPDY(url string) (*Forwarding, error) {
	conn, below, err := dialSPDY(url, portforward.ProtocolV1Name)
	return &Forwarding{conn: conn, Conn: below}, err
}

func forwardTunnel(url string) (*Forwarding, error) {
	ws, below, err := dialWebSocket(url, portforward.WebsocketsSPDYTunnelingPortForwardV1)
	if err != nil {
		return nil, err
	}
	conn, err := spdy.NewClientConnection(ws)
	return &Forwarding{conn: conn, Conn: below}, err
}

// Dial makes a connection to a port of the pod. Errors of the runtime come by the second stream.
func (f *Forwarding) Dial(port int) (data io.ReadWriteCloser, errs io.Reader, err error) {
	f.next++
	header := http.Header{portforward.PortHeader: {strconv.Itoa(port)}, portforward.PortForwardRequestIDHeader: {strconv.Itoa(f.next)}}
	header.Set(portforward.StreamType, portforward.StreamTypeError)
	e, err := f.conn.CreateStream(header)
	if err != nil {
		return nil, nil, fmt.Errorf("create error stream: %w", err)
	}
	header.Set(portforward.StreamType, portforward.StreamTypeData)
	d, err := f.conn.CreateStream(header)
	if err != nil {
		return nil, nil, fmt.Errorf("create data stream: %w", err)
	}
	return d, e, nil
}

// Close ends all connections.
func (f *Forwarding) Close() { _ = f.conn.Close() }
