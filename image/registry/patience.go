package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// maxWaits bounds how often one request is repeated after the host asked for a pause.
	maxWaits = 3
	// maxWait is the longest pause that a pull sits out. Who asks for more is believed, and the pull ends: kubelet comes
	// again by itself, and tells the user meanwhile.
	maxWait = 60 * time.Second
	// defaultWait is the first pause where the host does not say how long; each further one is twice as long.
	defaultWait = 500 * time.Millisecond
)

// busyError is a host that asks to be left alone (RFC 6585 section 4, RFC 9110 section 15.6.4) for longer than we wait.
// It is an error and no answer, so that the protocol library does not ask four times more at once.
type busyError struct {
	host   string
	status string
	after  time.Duration // what it asked for last; 0: nothing
}

func (e *busyError) Error() string {
	text := fmt.Sprintf("host %s answered %s %d times", e.host, e.status, maxWaits+1)
	if e.after > maxWait {
		text = fmt.Sprintf("host %s answered %s", e.host, e.status)
	}
	if e.after > 0 {
		text += fmt.Sprintf(", and asks for a pause of %s", e.after)
	}
	return text
}

// patiently sends a request, and again after the pause that the host asks for. The timer bounds each try by itself.
func (t *transport) patiently(req *http.Request, timer *time.Timer) (*http.Response, error) {
	for waits := 0; ; waits++ {
		timer.Reset(t.limit)
		resp, err := t.next.RoundTrip(req)
		timer.Stop()
		if err != nil {
			return nil, err
		}
		after, busy := pause(resp, time.Now())
		if !busy || (req.Body != nil && req.GetBody == nil) {
			return resp, nil
		}
		// So little of the body that the connection can be used again.
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
		_ = resp.Body.Close()
		if waits == maxWaits || after > maxWait {
			return nil, &busyError{host: req.URL.Host, status: resp.Status, after: after}
		}
		if after == 0 {
			after = defaultWait << waits
		}
		select {
		case <-time.After(after):
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// pause reads Retry-After, RFC 9110 section 10.2.3: seconds or a date. A 503 without it is no request for a pause.
func pause(resp *http.Response, now time.Time) (after time.Duration, busy bool) {
	value := resp.Header.Get("Retry-After")
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
	case http.StatusServiceUnavailable:
		if value == "" {
			return 0, false
		}
	default:
		return 0, false
	}
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second), true
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, true
}
