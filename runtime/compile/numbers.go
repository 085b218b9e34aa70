package compile

import (
	"encoding/binary"
	"strconv"
	"strings"
)

// Bounds of what a list may name: the kernel's own (CONFIG_NR_CPUS, CONFIG_NODES_SHIFT).
const (
	maxCPUs  = 8192
	maxNodes = 1024
)

// parseNumbers reads a list such as "0-3,7" into a mask of 64-bit words, of numbers below limit. It is as long
// as it has to be.
func parseNumbers(field, list string, limit uint64) ([]byte, error) {
	var words []uint64
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 32)
		last, err2 := strconv.ParseUint(to, 10, 32)
		switch {
		case err != nil || err2 != nil:
			return nil, bad(field, "%q is not a list such as 0-3,7", list)
		case first > last:
			return nil, bad(field, "%q: the range %s runs backwards", list, part)
		case last >= limit:
			return nil, bad(field, "%q: %d is beyond the kernel's last, %d", list, last, limit-1)
		}
		for n := first; n <= last; n++ {
			for uint64(len(words)) <= n/64 {
				words = append(words, 0)
			}
			words[n/64] |= 1 << (n % 64)
		}
	}
	mask := make([]byte, 0, 8*len(words))
	for _, w := range words {
		mask = binary.LittleEndian.AppendUint64(mask, w)
	}
	return mask, nil
}
