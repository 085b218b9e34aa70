package worker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	_ "net" // links the C library where cgo is on
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// allowAll is a seccomp filter of one instruction, "return SECCOMP_RET_ALLOW".
var allowAll = []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f}

// program is the worker of these tests, with the probe; a static one, as the real one is.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cri-mini-worker-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "./testdata/worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build worker: %w\n%s", err, out)
	}
	return filepath.Join(dir, "worker"), nil
})

func TestMain(m *testing.M) {
	Main() // see TestDynamicWorker
	code := m.Run()
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func start(t *testing.T, dir string) *Worker {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: a layer's files have owners")
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	w, err := Start(Command{Path: path, Filter: allowAll, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestConfinement(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tmp")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "probe"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	w := start(t, dir)
	<-w.done
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	lsm, _ := os.ReadFile("/sys/kernel/security/lsm")
	landlock := len(lsm) == 0 || strings.Contains(string(lsm), "landlock") // without securityfs it is not known
	want := "read true\nlist true\nwrite true\nrename true\ninside true\nnet_admin=0 no_new_privs=1\n"
	if !landlock {
		t.Skipf("this kernel runs without Landlock (%s); without it the worker could:\n%s", lsm, b)
	}
	if string(b) != want {
		t.Errorf("in the worker:\n%s\nwant:\n%s", b, want)
	}
}

// layer is a tar of one file, and its blob.
func layer(t *testing.T, content string) ([]byte, unpack.Blob) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content)), Uid: 7}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(b.Bytes())
	return b.Bytes(), unpack.Blob{Digest: d, DiffID: d, Size: int64(b.Len())}
}

func TestApply(t *testing.T) {
	dir := t.TempDir()
	w := start(t, dir)
	for i := range 3 {
		tarball, b := layer(t, strings.Repeat("content\n", 1+i*100_000))
		b.Content, b.Clock = io.NopCloser(bytes.NewReader(tarball)), new(unpack.Clock)
		to := filepath.Join(dir, fmt.Sprint(i), "f")
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		b.Keep = filepath.Dir(to)
		info, err := w.Apply(t.Context(), to, b, unpack.Limits{})
		if err != nil || info.Inodes != 2 || info.Tar != int64(len(tarball)) || b.Clock.Write.Load() == 0 {
			t.Errorf("layer %d: %+v, %v", i, info, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// A program that is not static, as a distribution may build it: this one, if cgo is on, which must find its libraries
// under Landlock.
func TestDynamicWorker(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a layer's files have owners")
	}
	dir := t.TempDir()
	w, err := Start(Command{Path: self, Filter: allowAll, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	tarball, b := layer(t, "content")
	b.Content = io.NopCloser(bytes.NewReader(tarball))
	to := filepath.Join(dir, "f")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Apply(t.Context(), to, b, unpack.Limits{}); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// brokenReader ends with an error of its own.
type brokenReader struct {
	io.Reader
	err error
}

func (r brokenReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		err = r.err
	}
	return n, err
}

func TestApplyFails(t *testing.T) {
	tarball, good := layer(t, strings.Repeat("content\n", 1000))
	lost := errors.New("the registry is gone")
	for _, c := range []struct {
		name   string
		change func(b *unpack.Blob)
		is     error
		says   string
	}{
		{"truncated", func(b *unpack.Blob) { b.Content = io.NopCloser(bytes.NewReader(tarball[:700])) }, unpack.ErrCorrupt, "truncated: 700 of"},
		{"too long", func(b *unpack.Blob) { b.Size = 100 }, unpack.ErrCorrupt, "longer than the 100 bytes"},
		{"another digest", func(b *unpack.Blob) { b.Digest = digest.FromString("x") }, unpack.ErrCorrupt, "digest mismatch"},
		{"the registry's error", func(b *unpack.Blob) {
			b.Content = io.NopCloser(brokenReader{bytes.NewReader(tarball[:700]), lost})
		}, lost, "unpack layer " + good.Digest.String()},
		{"no directory", func(b *unpack.Blob) { b.Keep = "/nonexistent" }, unix.ENOENT, "no such file or directory"},
		{"outside", func(b *unpack.Blob) { b.Keep = "/etc" }, unix.EACCES, "permission denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			w := start(t, dir)
			to := filepath.Join(dir, "f")
			if err := os.Mkdir(to, 0o755); err != nil {
				t.Fatal(err)
			}
			b := good
			b.Content = io.NopCloser(bytes.NewReader(tarball))
			c.change(&b)
			_, err := w.Apply(t.Context(), to, b, unpack.Limits{})
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %v, %q", err, c.is, c.says)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestApplyIsCancelled(t *testing.T) {
	dir := t.TempDir()
	w := start(t, dir)
	_, b := layer(t, "content")
	silent, hold := io.Pipe()
	defer hold.Close()
	b.Content = silent
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("nobody wants it any more")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, err := w.Apply(ctx, dir, b, unpack.Limits{}); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestWorkerIsKilled(t *testing.T) {
	dir := t.TempDir()
	w := start(t, dir)
	_, b := layer(t, "content")
	silent, hold := io.Pipe()
	defer hold.Close()
	b.Content = silent
	time.AfterFunc(50*time.Millisecond, func() { _ = w.cmd.Process.Kill() })
	ended := make(chan error, 1)
	go func() { _, err := w.Apply(t.Context(), dir, b, unpack.Limits{}); ended <- err }()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrDied) || !strings.Contains(err.Error(), "killed") {
			t.Errorf("killed: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Apply hangs")
	}
	_, b = layer(t, "content")
	b.Content = io.NopCloser(strings.NewReader(""))
	if _, err := w.Apply(t.Context(), dir, b, unpack.Limits{}); !errors.Is(err, ErrDied) {
		t.Errorf("after the death: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
