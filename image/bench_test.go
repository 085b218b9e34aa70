package image

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkPull measures a whole pull from loopback, MB/s of uncompressed content: five layers of 32 MB in files of
// 100 KB, half of it compressible. "again" is a pull of an image whose layers are all there.
func BenchmarkPull(b *testing.B) {
	const layers, files, size = 5, 320, 100_000
	r := rand.New(rand.NewPCG(1, 2))
	var raw [][]byte
	for range layers {
		lines := []string{"d ."}
		for f := range files {
			content := make([]byte, size)
			for i := range content {
				if content[i] = byte(r.Uint32()); i%2 == 0 {
					content[i] = "etaoin shrdlu"[content[i]%13]
				}
			}
			lines = append(lines, fmt.Sprintf("f d%d/f%d %s", f%10, f, content))
		}
		raw = append(raw, layerTar(b, lines...))
	}
	for _, kind := range []string{"gzip", "zstd"} {
		reg := newRegistry(b)
		reg.image(b, "x:1", spec{layers: raw, compress: []string{kind, kind, kind, kind, kind}})
		req := PullRequest{Ref: reg.host() + "/x:1"}
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(layers * files * size)
			s := openStore(b, testConfig(b.TempDir()))
			for b.Loop() {
				img, err := s.Pull(b.Context(), req)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Remove(b.Context(), img.ID); err != nil {
					b.Fatal(err)
				}
				s.Wait()
				b.StartTimer()
			}
		})
		b.Run(kind+" again", func(b *testing.B) {
			s := openStore(b, testConfig(b.TempDir()))
			for b.Loop() {
				if _, err := s.Pull(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
