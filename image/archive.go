package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is an image archive or layout directory: files by name.
type archive interface {
	open(name string) (io.ReadCloser, error)
	io.Closer
}

// openPath opens a layout directory or an archive file, which may be compressed.
func (s *Store) openPath(ctx context.Context, name string) (archive, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		// os.Root keeps a hostile layout's symlinks from reading the rest of the node.
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return dirArchive{root}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	raw, compressed, err := decompressArchive(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	if compressed {
		defer f.Close()
		a, err := s.spool(ctx, raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return a, nil
	}
	a, err := newTarArchive(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// openStream keeps the archive in a file without a name: its index may come last.
func (s *Store) openStream(ctx context.Context, r io.Reader) (archive, error) {
	raw, _, err := decompressArchive(r)
	if err != nil {
		return nil, err
	}
	return s.spool(ctx, raw)
}

func (s *Store) spool(ctx context.Context, r io.Reader) (archive, error) {
	f, err := s.disk.TempFile()
	if err != nil {
		return nil, err
	}
	read := readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
	if _, err := io.Copy(f, read); err != nil {
		return nil, errors.Join(fmt.Errorf("read archive: %w", err), f.Close())
	}
	return newTarArchive(f)
}

// decompressArchive looks at the first bytes. The reader it returns continues at the start.
func decompressArchive(r io.Reader) (raw io.Reader, compressed bool, err error) {
	in := bufio.NewReaderSize(r, 128<<10)
	magic, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("read archive: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		raw, err = gzip.NewReader(in)
		return raw, true, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, true, err
		}
		return d.IOReadCloser(), true, nil
	}
	return in, false, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type dirArchive struct{ root *os.Root }

func (d dirArchive) open(name string) (io.ReadCloser, error) {
	fi, err := d.root.Stat(name)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name) // a fifo would block
	}
	if err != nil {
		return nil, err
	}
	return d.root.Open(name)
}

func (d dirArchive) Close() error { return d.root.Close() }

// tarArchive knows where each member is.
type tarArchive struct {
	f       *os.File
	members map[string]*io.SectionReader
	links   map[string]string
}

const maxMembers = 100_000

func newTarArchive(f *os.File) (_ archive, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	a := &tarArchive{f: f, members: make(map[string]*io.SectionReader), links: make(map[string]string)}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	for tr := tar.NewReader(f); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, fmt.Errorf("read archive: %w: %w", ErrCorrupt, err)
		}
		if len(a.members)+len(a.links) > maxMembers {
			return nil, fmt.Errorf("read archive: %w: more than %d members", ErrCorrupt, maxMembers)
		}
		name := path.Clean(strings.TrimLeft(hdr.Name, "/"))
		switch hdr.Typeflag {
		case tar.TypeReg:
			// archive/tar reads header blocks only: the file is at the member's first byte.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			if hdr.Size > end-at {
				return nil, fmt.Errorf("read archive: %w: cut off in %q", ErrCorrupt, hdr.Name)
			}
			a.members[name] = io.NewSectionReader(f, at, hdr.Size)
		case tar.TypeSymlink: // docker save names a layer that is there twice by one
			a.links[name] = path.Join(path.Dir(name), hdr.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean(hdr.Linkname)
		}
	}
}

func (a *tarArchive) open(name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	for range 10 {
		if m, ok := a.members[name]; ok {
			return io.NopCloser(io.NewSectionReader(m, 0, m.Size())), nil
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (a *tarArchive) Close() error { return a.f.Close() }

// readMember reads a small member.
func readMember(a archive, name string) ([]byte, error) {
	rc, err := a.open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(rc, maxManifest+1))
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", name, ErrCorrupt, maxManifest)
	}
	return data, nil
}

// layoutSource fetches from blobs/ of an OCI layout, image-layout.md.
type layoutSource struct{ archive }

func (l layoutSource) Fetch(_ context.Context, desc ispec.Descriptor) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w: %w", string(desc.Digest), ErrCorrupt, err)
	}
	rc, err := l.open(path.Join("blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w: not in the archive: %w", desc.Digest, ErrCorrupt, err)
	}
	return rc, nil
}
