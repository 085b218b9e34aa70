package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// stallError says that a host took a request and then said nothing for too long. It is no net.Error on purpose: the
// protocol library would retry a timeout five times.
type stallError struct {
	host  string
	limit time.Duration
}

func (e *stallError) Error() string {
	return fmt.Sprintf("host %s sent nothing for %s", e.host, e.limit)
}

// transport bounds the silence of a host: from the start of a request to its response headers (dial, TLS and proxy
// included), and then within each read of the body. Time that the reader spends between reads does not count, so a slow
// disk is not taken for a slow registry.
type transport struct {
	next  http.RoundTripper
	limit time.Duration
	login login
	// hosts are those that the registry token may be sent to; never where a redirect leads.
	hosts func(host string) bool
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	stall := &stallError{host: req.URL.Host, limit: t.limit}
	timer := time.AfterFunc(t.limit, func() { cancel(stall) })
	req = req.Clone(ctx)
	if t.login.bearer != "" && req.Header.Get("Authorization") == "" && t.hosts(req.URL.Host) {
		req.Header.Set("Authorization", "Bearer "+t.login.bearer)
	}
	resp, err := t.patiently(req, timer)
	timer.Stop()
	if err != nil {
		defer cancel(nil)
		return nil, cause(ctx, err)
	}
	// The request's context, not the caller's, carries the stall as its cause.
	explain := func(err error) error { return cause(ctx, err) }
	resp.Body = &body{ReadCloser: resp.Body, explain: explain, cancel: cancel, timer: timer, limit: t.limit}
	return resp, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections reach the real transport.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

type body struct {
	io.ReadCloser
	explain func(error) error
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	limit   time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.explain(err)
		var stall *stallError
		if !errors.As(err, &stall) {
			err = &brokenError{err}
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// cause replaces "context canceled" by the stall that cancelled it.
func cause(ctx context.Context, err error) error {
	var stall *stallError
	if errors.As(context.Cause(ctx), &stall) {
		return stall
	}
	return err
}
