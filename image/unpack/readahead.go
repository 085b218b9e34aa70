package unpack

import (
	"io"
	"sync"
	"time"
)

const (
	aheadBlock  = 256 << 10
	aheadBlocks = 4
)

var aheadBuffers = sync.Pool{New: func() any { b := make([]byte, aheadBlock); return &b }}

// ahead reads in a goroutine of its own, so that decompressing one layer and writing its files use two cores.
type ahead struct {
	blocks chan block
	quit   chan struct{}
	done   chan struct{}

	now   block // in use by the reader
	rest  []byte
	ended error // the source's last word, once the reader has seen it

	filled int64 // nanoseconds in the source, to be read after stop
	waited int64 // nanoseconds that Read was without a block
}

type block struct {
	buf *[]byte
	n   int
	err error
}

func readAhead(r io.Reader) *ahead {
	a := &ahead{
		blocks: make(chan block, aheadBlocks-2), // one is being filled, one being read
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.done)
	if c, ok := r.(io.Closer); ok {
		defer c.Close() // a zstd decoder's buffers
	}
	for {
		b := block{buf: aheadBuffers.Get().(*[]byte)}
		began := time.Now()
		for b.n < len(*b.buf) && b.err == nil {
			var n int
			n, b.err = r.Read((*b.buf)[b.n:])
			b.n += n
		}
		a.filled += int64(time.Since(began))
		select {
		case a.blocks <- b:
		case <-a.quit:
			aheadBuffers.Put(b.buf)
			return
		}
		if b.err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.ended != nil {
			return 0, a.ended
		}
		if a.now.err != nil {
			a.ended = a.now.err
			continue
		}
		a.release()
		began := time.Now()
		a.now = <-a.blocks
		a.waited += int64(time.Since(began))
		a.rest = (*a.now.buf)[:a.now.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *ahead) release() {
	if a.now.buf != nil {
		aheadBuffers.Put(a.now.buf)
		a.now.buf = nil
	}
}

// stop ends the goroutine and waits for it; a read that it is in must end by itself.
func (a *ahead) stop() {
	close(a.quit)
	<-a.done
	for {
		select {
		case b := <-a.blocks:
			aheadBuffers.Put(b.buf)
		default:
			a.release()
			return
		}
	}
}
