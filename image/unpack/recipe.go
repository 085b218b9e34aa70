package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// A recipe tells how a layer's tar is put together again from the directory that was made of it, byte for byte: the
// headers and paddings themselves, and for the content of each file where it is. With it a layer can be held against
// its diff id long after its blob is gone, and be given out again.
//
// It is a zstd stream of records, each a kind and its fields, numbers as uvarints (encoding/binary):
//
//	'r' n, n bytes            as they are in the tar
//	'f' n, n bytes, ino, size the content of the file at this path, which has this inode number
//
// A file whose name a later entry took is kept in a directory of its own by its inode number.
const (
	recipeFile = "tar.zst"
	asideDir   = "r"

	recordRaw  = 'r'
	recordFile = 'f'
)

// flushRaw bounds the raw bytes that are held back, and maxRaw those that a record may have.
const (
	flushRaw = 64 << 10
	maxRaw   = 1 << 20
)

// recorder writes the recipe while the tar goes through it. The zero value passes the tar on and records nothing.
type recorder struct {
	r     io.Reader // the tar
	out   *zstd.Encoder
	file  *os.File
	aside string // directory for files whose name was taken
	raw   []byte
	skip  int64 // bytes to come that the file just begun holds
}

// newRecorder writes the recipe into dir; "" is none.
func newRecorder(r io.Reader, dir string) (*recorder, error) {
	rec := &recorder{r: r}
	if dir == "" {
		return rec, nil
	}
	var err error
	if rec.file, err = os.OpenFile(filepath.Join(dir, recipeFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	rec.aside = filepath.Join(dir, asideDir)
	rec.out, err = zstd.NewWriter(rec.file, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, errors.Join(err, rec.file.Close())
	}
	return rec, nil
}

// Read passes the tar on.
func (rec *recorder) Read(p []byte) (int, error) {
	n, err := rec.r.Read(p)
	if rec.out == nil {
		return n, err
	}
	part := p[:n]
	held := min(rec.skip, int64(n))
	rec.skip -= held
	rec.raw = append(rec.raw, part[held:]...)
	if len(rec.raw) >= flushRaw {
		if err := rec.flush(); err != nil {
			return n, err
		}
	}
	return n, err
}

func (rec *recorder) flush() error {
	for len(rec.raw) > 0 {
		part := rec.raw[:min(len(rec.raw), maxRaw)]
		head := binary.AppendUvarint([]byte{recordRaw}, uint64(len(part)))
		if _, err := rec.out.Write(head); err != nil {
			return err
		}
		if _, err := rec.out.Write(part); err != nil {
			return err
		}
		rec.raw = rec.raw[len(part):]
	}
	rec.raw = rec.raw[:0:cap(rec.raw)]
	return nil
}

// content says that the next size bytes of the tar are in the open file at a path.
func (rec *recorder) content(path string, fd int, size int64) error {
	if rec.out == nil || size == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := rec.flush(); err != nil {
		return err
	}
	head := binary.AppendUvarint([]byte{recordFile}, uint64(len(path)))
	head = append(head, path...)
	head = binary.AppendUvarint(head, st.Ino)
	head = binary.AppendUvarint(head, uint64(size))
	if _, err := rec.out.Write(head); err != nil {
		return err
	}
	rec.skip = size
	return nil
}

// unlink takes a name away. Of a file whose content the recipe needs it makes the inode number the new name.
func (rec *recorder) unlink(dirfd int, base string) error {
	var st unix.Stat_t
	if rec.out == nil || unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil ||
		st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return unix.Unlinkat(dirfd, base, 0)
	}
	if err := os.Mkdir(rec.aside, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	to := filepath.Join(rec.aside, strconv.FormatUint(st.Ino, 10))
	err := unix.Renameat2(dirfd, base, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) { // another name of it went before
		return unix.Unlinkat(dirfd, base, 0)
	}
	return err
}

// close ends the recipe.
func (rec *recorder) close() error {
	if rec.out == nil {
		return nil
	}
	err := rec.flush()
	return errors.Join(err, rec.out.Close(), rec.file.Close())
}

// ErrNoRecipe says that a layer cannot be put together again: it was unpacked by a version that kept no recipe.
var ErrNoRecipe = errors.New("layer has no recipe")

// Reassemble writes the tar that the directory files was unpacked from with its recipe in keep. That the result is
// right only its digest can tell. ErrCorrupt names what is missing or has another size.
func Reassemble(w io.Writer, files, keep string) error {
	f, err := os.Open(filepath.Join(keep, recipeFile))
	if errors.Is(err, os.ErrNotExist) {
		return ErrNoRecipe
	}
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := unix.Open(files, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: files, Err: err}
	}
	defer unix.Close(root)
	a := &assembler{w: w, in: bufio.NewReader(z), root: root, aside: filepath.Join(keep, asideDir), buf: make([]byte, 256<<10)}
	for {
		if more, err := a.record(); err != nil || !more {
			return err
		}
	}
}

type assembler struct {
	w     io.Writer
	in    *bufio.Reader
	root  int
	aside string
	buf   []byte
}

func (a *assembler) record() (more bool, err error) {
	kind, err := a.in.ReadByte()
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, recipeError(err)
	}
	n, err := binary.ReadUvarint(a.in)
	if err != nil || n > maxRaw {
		return false, recipeError(err)
	}
	switch kind {
	case recordRaw:
		return true, recipeError(a.copy(a.in, int64(n)))
	case recordFile:
		path := make([]byte, n)
		if _, err := io.ReadFull(a.in, path); err != nil {
			return false, recipeError(err)
		}
		ino, err := binary.ReadUvarint(a.in)
		if err != nil {
			return false, recipeError(err)
		}
		size, err := binary.ReadUvarint(a.in)
		if err != nil {
			return false, recipeError(err)
		}
		return true, a.file(string(path), ino, int64(size))
	}
	return false, recipeError(fmt.Errorf("record of kind %q", kind))
}

func recipeError(err error) error {
	var write *writeError
	if err == nil || errors.As(err, &write) {
		return err
	}
	return refuse("recipe: %w", err)
}

// writeError is of the one who takes the tar.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

func (a *assembler) copy(from io.Reader, n int64) error {
	for n > 0 {
		part := a.buf[:min(n, int64(len(a.buf)))]
		if _, err := io.ReadFull(from, part); err != nil {
			return err
		}
		if _, err := a.w.Write(part); err != nil {
			return &writeError{err}
		}
		n -= int64(len(part))
	}
	return nil
}

// file copies a file's content. If the file at the path is another one, what was there before is aside; but the numbers
// of a restored backup are all others, and then the path is right.
func (a *assembler) file(path string, ino uint64, size int64) error {
	fd, err := unix.Openat2(a.root, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil || st.Ino != ino {
		if old, oldErr := unix.Open(filepath.Join(a.aside, strconv.FormatUint(ino, 10)), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); oldErr == nil {
			if err == nil {
				unix.Close(fd)
			}
			fd, err = old, unix.Fstat(old, &st)
		}
	}
	if err != nil {
		return entryError(path, refuse("its file cannot be read: %w", err))
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if st.Size != size {
		return entryError(path, refuse("its file has %d bytes, not %d", st.Size, size))
	}
	if err := a.copy(f, size); err != nil {
		var write *writeError
		if errors.As(err, &write) {
			return err
		}
		return entryError(path, err)
	}
	return nil
}
