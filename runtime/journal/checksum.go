package journal

import (
	"hash/crc32"
	"sync"
)

// longRecord is from where on the processor's own instruction is worth its tables.
const longRecord = 64 << 10

// checksum is CRC-32C. The tables of hash/crc32 take a fifth of a millisecond to make, which is much for a command
// that writes five short records: those are summed byte by byte.
func checksum(b []byte) uint32 {
	if len(b) >= longRecord {
		return crc32.Checksum(b, longTable())
	}
	table, c := shortTable(), ^uint32(0)
	for _, v := range b {
		c = table[byte(c)^v] ^ c>>8
	}
	return ^c
}

var longTable = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

var shortTable = sync.OnceValue(func() *[256]uint32 {
	table := &[256]uint32{}
	for i := range table {
		c := uint32(i)
		for range 8 {
			c = c>>1 ^ crc32.Castagnoli*(c&1)
		}
		table[i] = c
	}
	return table
})
