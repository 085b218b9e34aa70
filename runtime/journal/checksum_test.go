package journal

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// TestChecksum: short and long records have the checksum that journals have always had.
func TestChecksum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, longRecord+7)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	for _, n := range []int{0, 1, 9, 255, 4096, longRecord - 1, longRecord, len(b)} {
		if got, want := checksum(b[:n]), crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)); got != want {
			t.Errorf("%d bytes: %08x, want %08x", n, got, want)
		}
	}
}
