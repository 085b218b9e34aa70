package worker

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// feeder pumps a blob into the worker's pipe.
type feeder struct {
	blob   unpack.Blob
	cancel func() bool
	ended  atomic.Bool // nobody reads the pipe any more
	done   chan error
}

func feed(ctx context.Context, pipe *os.File, b unpack.Blob) *feeder {
	f := &feeder{blob: b, done: make(chan error, 1)}
	f.cancel = context.AfterFunc(ctx, func() { b.Content.Close() }) // ends the Read in progress
	go func() {
		err := f.pump(pipe)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		pipe.Close() // the end of the blob for the worker, which answers now
		f.done <- err
	}()
	return f
}

// pump copies by one large buffer: a registry's TLS records come in 16 KiB.
func (f *feeder) pump(pipe *os.File) error {
	buf := make([]byte, 256<<10)
	for {
		began := time.Now()
		n, err := f.blob.Content.Read(buf)
		if c := f.blob.Clock; c != nil {
			c.Fetch.Add(int64(time.Since(began)))
		}
		if n > 0 {
			if _, err := pipe.Write(buf[:n]); errors.Is(err, unix.EPIPE) {
				return nil // the worker has seen enough: its answer says why
			} else if err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // themselves: wrapped they are a broken connection
			return nil // whether that is the end is for the worker to find out, which counts
		}
		if f.ended.Load() {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end is called when the worker has answered, or died. It gives the error of the content, or the cancellation; none if
// the blob was still coming.
func (f *feeder) end() error {
	f.ended.Store(true)
	f.blob.Content.Close() // ends the Read in progress
	err := <-f.done
	f.cancel()
	return err
}
