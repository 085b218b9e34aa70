package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/cri-mini/cri-mini/image"
)

// Client asks a daemon. Errors that the daemon answered are an *Error.
type Client struct{ http http.Client }

// Dial gives a client of the daemon at a socket. It connects with the first request.
func Dial(socket string) *Client {
	return newClient(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	})
}

// Local gives a client of a server in this process, for commands on a store that no daemon has open. Close ends it.
func Local(h http.Handler) (c *Client, close func() error) {
	conns := pipes{make(chan net.Conn), make(chan struct{})}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(conns) }() // it ends with srv.Close
	return newClient(conns.dial), srv.Close
}

func newClient(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}
}

// pipes is a listener for one's own process.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.done); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "local", Net: "unix"} }

// request sends one; body may be nil. The answer's status is 200.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://cri-mini"+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // the URL in it means nothing to a person
		}
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&e); err != nil || e.Message == "" {
		return nil, fmt.Errorf("ask the daemon: it answered %s", resp.Status)
	}
	return nil, &e
}

// ask is a request with an answer of one document.
func ask[T any](ctx context.Context, c *Client, method, path string, query url.Values) (answer T, err error) {
	resp, err := c.request(ctx, method, path, query, nil)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return answer, nil
}

// follow reads the lines of a long answer; the last one's images are the result.
func (c *Client) follow(ctx context.Context, path string, query url.Values, body io.Reader, see func(Event)) ([]*Image, error) {
	resp, err := c.request(ctx, http.MethodPost, path, query, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var e Event
		if err := lines.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read the daemon's answer: %w", err)
		}
		switch {
		case e.Error != nil:
			return nil, e.Error
		case e.Images != nil || e.Done:
			return e.Images, nil
		}
		see(e)
	}
}

// List gives all images, in order of id.
func (c *Client) List(ctx context.Context) ([]*Image, error) {
	return ask[[]*Image](ctx, c, http.MethodGet, "/v1/images", nil)
}

// Inspect gives one image, named by id, the start of an id, tag or digest.
func (c *Client) Inspect(ctx context.Context, ref string) (*Image, error) {
	return ask[*Image](ctx, c, http.MethodGet, "/v1/image", url.Values{"ref": {ref}})
}

// Remove removes one with all its names and tells which.
func (c *Client) Remove(ctx context.Context, ref string) (*Image, error) {
	return ask[*Image](ctx, c, http.MethodDelete, "/v1/image", url.Values{"ref": {ref}})
}

// Pulls lists the pulls and loads that run.
func (c *Client) Pulls(ctx context.Context) ([]image.PullStatus, error) {
	return ask[[]image.PullStatus](ctx, c, http.MethodGet, "/v1/pulls", nil)
}

// Mount shows an image at an absolute directory of the daemon's machine.
func (c *Client) Mount(ctx context.Context, ref, dir string) (*Image, error) {
	return ask[*Image](ctx, c, http.MethodPost, "/v1/image/mount", url.Values{"ref": {ref}, "dir": {dir}})
}

// Unmount ends a Mount.
func (c *Client) Unmount(ctx context.Context, dir string) error {
	_, err := ask[Event](ctx, c, http.MethodDelete, "/v1/image/mount", url.Values{"dir": {dir}})
	return err
}

// Pull fetches an image; see gets its progress.
func (c *Client) Pull(ctx context.Context, req PullRequest, see func(Event)) ([]*Image, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return c.follow(ctx, "/v1/image", nil, bytes.NewReader(body), see)
}

// Load reads an archive: from r, or if that is nil from an absolute path of the daemon's machine.
func (c *Client) Load(ctx context.Context, r io.Reader, path, name string, see func(Event)) ([]*Image, error) {
	query := url.Values{"name": {name}}
	if r == nil {
		query.Set("path", path)
	}
	return c.follow(ctx, "/v1/image/archive", query, r, see)
}

// Verify checks the layers of the images named, or of all; see gets each result.
func (c *Client) Verify(ctx context.Context, refs []string, see func(Event)) error {
	_, err := c.follow(ctx, "/v1/image/verify", url.Values{"ref": refs}, nil, see)
	return err
}

// Save writes an archive. After an error what was written is of no use.
func (c *Client) Save(ctx context.Context, w io.Writer, refs []string) error {
	resp, err := c.request(ctx, http.MethodGet, "/v1/image/archive", url.Values{"ref": refs}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("save image: %w", err)
	}
	var e Error
	if err := json.Unmarshal([]byte(resp.Trailer.Get(resultTrailer)), &e); err != nil {
		return fmt.Errorf("save image: the daemon's answer was cut off: %w", io.ErrUnexpectedEOF)
	}
	if e.Message != "" {
		return &e
	}
	return nil
}
