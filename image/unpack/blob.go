package unpack

import (
	"bufio"
	"bytes"
	"context"
	_ "crypto/sha256" // for digests that name it
	_ "crypto/sha512" // likewise
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Blob is a layer as it comes from a registry or an archive.
type Blob struct {
	Content io.ReadCloser
	Digest  digest.Digest // of Content as it is; empty skips the check
	Size    int64         // of Content; negative skips the check
	DiffID  digest.Digest // of the uncompressed tar
	Keep    string        // directory for the recipe, see Reassemble; empty keeps none
	Clock   *Clock        // gets the time that each stage takes; may be nil
}

// Clock sums up how long the stages of unpacking were at work, waiting for each other left out. Stages run side by side,
// and layers may share a clock, so that the sum is more than the time that passes.
type Clock struct {
	Fetch      atomic.Int64 // nanoseconds of waiting for the blob's bytes
	Decompress atomic.Int64 // of decompressing them, and of the blob's digest
	Write      atomic.Int64 // of making files, and of the diff id
}

// maxWindow bounds the memory that a zstd frame may ask for; zstd(1) makes none above without --ultra --long.
const maxWindow = 128 << 20

// Apply unpacks a blob into the empty directory dir while it streams, and verifies its size, its digest and its diff
// id. It closes the content. The compression is told by the first bytes, not by the media type: registries mislabel.
//
// On error dir must be thrown away. ErrCorrupt names what does not hold; an error of Content itself comes through.
func Apply(ctx context.Context, dir string, b Blob, limits Limits) (Info, error) {
	info, err := b.apply(ctx, dir, limits)
	if err != nil {
		return Info{}, fmt.Errorf("unpack layer %s (diff id %s): %w", b.Digest, b.DiffID, err)
	}
	return info, nil
}

func (b *Blob) apply(ctx context.Context, dir string, limits Limits) (Info, error) {
	defer b.Content.Close()
	if err := b.validate(); err != nil {
		return Info{}, err
	}
	clock := b.Clock
	if clock == nil {
		clock = new(Clock)
	}
	src := &source{r: b.Content, size: b.Size}
	if b.Digest != "" {
		src.hash = b.Digest.Algorithm().Hash()
	}
	in := bufio.NewReaderSize(src, 128<<10)
	raw, err := decompress(in)
	if err != nil {
		return Info{}, src.blame(err)
	}
	ahead := readAhead(raw)
	began := time.Now()
	defer func() { clock.Write.Add(int64(time.Since(began)) - ahead.waited) }()
	blame := func(err error) error {
		if ahead.ended != nil { // the goroutine has left src alone
			return src.blame(err)
		}
		return blameContent(err)
	}
	defer func() {
		b.Content.Close() // unblocks a read in progress, so that stop does not wait for the registry
		ahead.stop()
		clock.Fetch.Add(src.took)
		clock.Decompress.Add(max(0, ahead.filled-src.took))
	}()
	diff := &tee{r: ahead, hash: b.DiffID.Algorithm().Hash()}
	info, err := record(ctx, dir, diff, limits, b.Keep)
	if err != nil {
		return Info{}, blame(err)
	}
	// What follows the compressed stream counts for the digest.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return Info{}, src.blame(err)
	}
	info.Tar = diff.n
	return info, b.verify(src, diff)
}

// record unpacks the tar and writes its recipe. It reads to the end: padding after the archive counts for the diff id.
func record(ctx context.Context, dir string, r io.Reader, limits Limits, keep string) (Info, error) {
	rec, err := newRecorder(r, keep)
	if err != nil {
		return Info{}, err
	}
	info, err := untar(ctx, dir, rec, limits)
	if err == nil {
		_, err = io.Copy(io.Discard, rec)
	}
	return info, errors.Join(err, rec.close())
}

func (b *Blob) validate() error {
	if err := b.DiffID.Validate(); err != nil {
		return refuse("diff id: %w", err)
	}
	if b.Digest == "" {
		return nil
	}
	if err := b.Digest.Validate(); err != nil {
		return refuse("digest: %w", err)
	}
	return nil
}

func (b *Blob) verify(src *source, diff *tee) error {
	if b.Size >= 0 && src.n < b.Size {
		return src.blame(nil)
	}
	if b.Digest != "" {
		if got := digest.NewDigest(b.Digest.Algorithm(), src.hash); got != b.Digest {
			return refuse("digest mismatch: blob has %s", got)
		}
	}
	if got := digest.NewDigest(b.DiffID.Algorithm(), diff.hash); got != b.DiffID {
		return refuse("diff id mismatch: uncompressed content has %s", got)
	}
	return nil
}

// decompress sniffs the magic number.
func decompress(in *bufio.Reader) (io.Reader, error) {
	magic, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(in) // multi-stream, as stargz and pigz write it
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}): // skippable frame first
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return in, nil
}

// source counts and hashes the blob as it comes, and remembers where an error came from.
type source struct {
	r    io.Reader
	hash hash.Hash
	size int64
	n    int64
	took int64 // nanoseconds in r
	eof  bool
	err  error // of r itself
}

func (s *source) Read(p []byte) (int, error) {
	if s.size >= 0 && s.n > s.size {
		s.err = refuse("blob is longer than the %d bytes that the manifest says", s.size)
		return 0, s.err
	}
	began := time.Now()
	n, err := s.r.Read(p)
	s.took += int64(time.Since(began))
	s.n += int64(n)
	if s.hash != nil {
		s.hash.Write(p[:n])
	}
	if err != nil {
		s.eof = err == io.EOF || err == io.ErrUnexpectedEOF //nolint:errorlint // themselves: wrapped they are a broken connection
		if !s.eof {
			s.err = err
		}
	}
	return n, err
}

// blame finds the reason behind an error of the decompressor or the tar reader: a read error first, then a blob that
// ended early, and only then the content.
func (s *source) blame(err error) error {
	switch {
	case s.err != nil:
		return s.err
	case s.eof && s.size >= 0 && s.n < s.size:
		return refuse("truncated: %d of %d bytes", s.n, s.size)
	}
	return blameContent(err)
}

// blameContent marks as corrupt what no system call and no cancellation is the cause of: the decompressors and the tar
// reader have no other errors.
func blameContent(err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, ErrCorrupt), errors.As(err, &errno), errors.Is(err, errCancelled):
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

type tee struct {
	r    io.Reader
	hash hash.Hash
	n    int64
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.n += int64(n)
	t.hash.Write(p[:n])
	return n, err
}
