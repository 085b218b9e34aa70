package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxBreaks bounds the connections in a row that break without a byte of progress.
	maxBreaks = 4
	// maxStalls bounds the silences of one blob that are answered with a new connection. One more is worth it: a load
	// balancer that lost its backend is silent, too, and the next connection gets another.
	maxStalls = 1
)

// brokenError says that a connection ended in the middle of a body. It is no io.ErrUnexpectedEOF on purpose: the
// protocol library would reopen the body itself, and tell a dead registry from a short blob no longer.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// blob is the content of a descriptor while it is read. It outlives the connections that bring it: the protocol library
// connects at the first Read.
type blob struct {
	repo   *Repository
	desc   ispec.Descriptor
	ctx    context.Context //nolint:containedctx // a reader's methods have none; it ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex // held through a Read
	body   io.ReadCloser
	at     int64 // bytes that the reader has
	breaks int
	stalls int
}

// open prepares to ask for what is left of the blob.
func (b *blob) open() error {
	ctx := withLogger(b.ctx, b.repo.log)
	f, err := b.repo.openFetcher(ctx)
	if err != nil {
		return err
	}
	body, err := f.Fetch(ctx, b.desc)
	if err != nil {
		return err
	}
	if b.at > 0 {
		s, ok := body.(io.Seeker)
		if !ok {
			return errors.Join(errors.New("the protocol library's body cannot seek"), body.Close())
		}
		if _, err := s.Seek(b.at, io.SeekStart); err != nil {
			return errors.Join(err, body.Close())
		}
	}
	b.body = body
	return nil
}

func (b *blob) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p) > 0 {
		n, err := b.body.Read(p)
		b.at += int64(n)
		if n > 0 {
			b.breaks = 0
			if err != io.EOF {
				err = nil // another error comes again with the next read
			}
			return n, err
		}
		var status remoteerrors.ErrUnexpectedStatus
		switch {
		case err == nil:
			continue
		case err == io.EOF: // itself: the end of the body
			return 0, err
		case errors.As(err, &status) && status.StatusCode == http.StatusRequestedRangeNotSatisfiable:
			return 0, io.ErrUnexpectedEOF // we asked for more at the end of what there is: the blob is too short
		}
		if !b.again(err) {
			return 0, b.repo.fetchError(b.ctx, b.desc, err)
		}
		if err := b.reopen(); err != nil {
			return 0, b.repo.fetchError(b.ctx, b.desc, err)
		}
	}
	return 0, nil
}

// again tells whether another connection may help.
func (b *blob) again(err error) bool {
	if b.ctx.Err() != nil {
		return false
	}
	var stall *stallError
	if errors.As(err, &stall) {
		b.stalls++
		return b.stalls <= maxStalls
	}
	var broken *brokenError
	var dial *net.OpError
	// A registry that was there a moment ago and refuses connections is being restarted.
	if errors.As(err, &broken) || (b.at > 0 && errors.As(err, &dial)) {
		b.breaks++
		return b.breaks < maxBreaks
	}
	return false
}

// reopen waits longer each time, 0 to 2 s.
func (b *blob) reopen() error {
	wait := max(0, b.breaks-1)
	select {
	case <-time.After(time.Duration(wait*wait) * 500 * time.Millisecond):
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	_ = b.body.Close()
	return b.open()
}

// Close ends a Read in progress, too.
func (b *blob) Close() error {
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.body.Close()
}
