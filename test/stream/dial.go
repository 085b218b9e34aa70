package stream

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// dialSPDY upgrades a connection as kubelet and crictl do.
func dialSPDY(raw, protocol string) (httpstream.Connection, net.Conn, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequest(http.MethodPost, raw, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	req.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	if err := req.Write(conn); err != nil {
		return nil, nil, err
	}
	buffered := bufio.NewReader(conn)
	resp, err := http.ReadResponse(buffered, req)
	if err != nil {
		return nil, nil, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("upgrade to SPDY: %s", resp.Status)
	}
	s, err := spdy.NewClientConnection(bufferedConn{conn, buffered})
	return s, conn, err
}

// bufferedConn reads what came with the answer first.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// dialWebSocket upgrades a connection as kubectl does.
func dialWebSocket(raw, protocol string) (*websocket.Conn, net.Conn, error) {
	config, err := websocket.NewConfig(raw, "http://localhost")
	if err != nil {
		return nil, nil, err
	}
	config.Protocol = []string{protocol}
	conn, err := net.Dial("tcp", config.Location.Host)
	if err != nil {
		return nil, nil, err
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("upgrade to WebSocket: %w", err)
	}
	ws.PayloadType = websocket.BinaryFrame
	return ws, conn, nil
}
