package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

func blobOf(data, raw []byte) Blob {
	return Blob{Content: io.NopCloser(bytes.NewReader(data)), Digest: digest.FromBytes(data), Size: int64(len(data)), DiffID: digest.FromBytes(raw)}
}

func TestApplyKnowsCompressionByItsFirstBytes(t *testing.T) {
	needRoot(t)
	raw := makeTar(t, dir("."), file("f", strings.Repeat("content ", 100_000)))
	padded := append(bytes.Clone(raw), make([]byte, 20<<10)...)
	half := len(raw) / 2
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "note"...)
	tests := []struct {
		name      string
		data, raw []byte
	}{
		{"none", raw, raw},
		{"gzip", gzipped(t, raw), raw},
		{"gzip in two streams", append(gzipped(t, raw[:half]), gzipped(t, raw[half:])...), raw},
		{"zstd", zstded(t, raw), raw},
		{"zstd with skippable frames around", append(append(bytes.Clone(skippable), zstded(t, raw)...), skippable...), raw},
		{"padding after the archive", gzipped(t, padded), padded},
		{"empty blob", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info, err := Apply(t.Context(), t.TempDir(), blobOf(tt.data, tt.raw), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if want := int64(min(len(tt.data), 2)); info.Entries != want {
				t.Errorf("entries = %d, want %d", info.Entries, want)
			}
		})
	}
}

func TestApplyNamesTheBadBlob(t *testing.T) {
	needRoot(t)
	random := make([]byte, 1<<20)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	raw := makeTar(t, dir("."), file("f", string(random)))
	gz := gzipped(t, raw)
	cut := func(b Blob, n int) Blob {
		b.Content = io.NopCloser(io.LimitReader(b.Content, int64(n)))
		return b
	}
	flipped := bytes.Clone(gz)
	flipped[len(flipped)/2] ^= 1
	other := digest.FromString("other")
	ioErr := errors.New("connection reset")
	tests := []struct {
		name   string
		blob   func() Blob
		reason string
		is     error
	}{
		{"truncated gzip", func() Blob { return cut(blobOf(gz, raw), 5000) }, fmt.Sprintf("truncated: 5000 of %d", len(gz)), ErrCorrupt},
		{"truncated tar", func() Blob { return cut(blobOf(raw, raw), 700_000) }, fmt.Sprintf("truncated: 700000 of %d", len(raw)), ErrCorrupt},
		{"truncated to nothing", func() Blob { return cut(blobOf(gz, raw), 0) }, "truncated: 0 of", ErrCorrupt},
		{"longer", func() Blob { b := blobOf(gz, raw); b.Size -= 10; return b }, "longer than", ErrCorrupt},
		{"tar cut inside gzip", func() Blob { return blobOf(gzipped(t, raw[:700_000]), raw) }, "unexpected EOF", ErrCorrupt},
		{"bit flip", func() Blob { b := blobOf(flipped, raw); b.Digest = digest.FromBytes(gz); return b }, "unpack layer", ErrCorrupt},
		{"digest mismatch", func() Blob { b := blobOf(gz, raw); b.Digest = other; return b }, "digest mismatch", ErrCorrupt},
		{"diff id mismatch", func() Blob { b := blobOf(gz, raw); b.DiffID = other; return b }, "diff id mismatch", ErrCorrupt},
		{"not a tar", func() Blob { return blobOf(random, random) }, "entry 1 of the tar", ErrCorrupt},
		{"bad diff id", func() Blob { b := blobOf(gz, raw); b.DiffID = "sha256:../../x"; return b }, "diff id", ErrCorrupt},
		{"read error", func() Blob {
			b := blobOf(gz, raw)
			b.Content = io.NopCloser(io.MultiReader(bytes.NewReader(gz[:9000]), failing{ioErr}))
			return b
		}, "connection reset", ioErr},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.blob()
			_, err := Apply(t.Context(), t.TempDir(), b, Limits{})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.reason) || !strings.Contains(err.Error(), b.Digest.String()) {
				t.Errorf("error = %v; want %v, %q and the digest", err, tt.is, tt.reason)
			}
			if errors.Is(tt.is, ioErr) && errors.Is(err, ErrCorrupt) {
				t.Error("a read error was called corruption")
			}
		})
	}
}

func TestApplyStopsWhenCancelled(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	raw := makeTar(t, file("f", "x"))
	if _, err := Apply(ctx, t.TempDir(), blobOf(raw, raw), Limits{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrCorrupt) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzTar feeds any bytes to the tar reader: the error must come back, and nothing may appear outside the root.
func FuzzTar(f *testing.F) {
	needRoot(f)
	f.Add(makeTar(f, dir("."), file("a/f", "x"), link("l", "a/f"), symlink("s", "/a"), file("s/g", ""), file(".wh.w", "")))
	f.Add(makeTar(f, file("../evil", "")))
	f.Add(makeTar(f, symlink("a", "../.."), file("a/evil", ""), tar.Header{Typeflag: tar.TypeFifo, Name: "p"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		root := outer + "/l"
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		_, _ = Tar(t.Context(), root, bytes.NewReader(data), Limits{Bytes: 1 << 20, Entries: 1000})
		names, err := os.ReadDir(outer)
		if err != nil || len(names) != 1 {
			t.Fatalf("outside the root: %v, %v", names, err)
		}
		// Modes of hostile entries must not keep the test from cleaning up; root needs no help, t.TempDir removes all.
	})
}

// BenchmarkApply measures one layer, MB/s of uncompressed content: half text-like, in files of 8 KiB to 1 MiB.
func BenchmarkApply(b *testing.B) {
	needRoot(b)
	raw := benchTar(b, 64<<20)
	for _, c := range []struct {
		name string
		data []byte
	}{{"none", raw}, {"gzip", gzipped(b, raw)}, {"zstd", zstded(b, raw)}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			dirs := b.TempDir()
			for i := 0; b.Loop(); i++ {
				dir := fmt.Sprintf("%s/%d", dirs, i)
				if err := os.Mkdir(dir, 0o755); err != nil {
					b.Fatal(err)
				}
				if _, err := Apply(b.Context(), dir, blobOf(c.data, raw), Limits{}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				os.RemoveAll(dir)
				b.StartTimer()
			}
		})
	}
}

func benchTar(b *testing.B, size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var headers []tar.Header
	for n := 0; size > 0; n++ {
		content := make([]byte, 8<<10<<r.IntN(8))
		for i := range content {
			if content[i] = byte(r.Uint32()); i%2 == 0 {
				content[i] = "etaoin shrdlu"[content[i]%13]
			}
		}
		headers = append(headers, file(fmt.Sprintf("d%d/f%d", n%20, n), string(content)))
		size -= len(content)
	}
	return makeTar(b, headers...)
}
