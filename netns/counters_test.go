package netns

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCounters(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 5038     47    1    2    0     0          0         3     3210      40    4    5    0     0       0          0
eth1.5:18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 short: 1 2 3
`
	want := []Counters{
		{Name: "eth0", RxBytes: 5038, RxPackets: 47, RxErrors: 1, RxDropped: 2, TxBytes: 3210, TxPackets: 40, TxErrors: 4, TxDropped: 5},
		{Name: "eth1.5", RxBytes: 18446744073709551615},
	}
	if diff := cmp.Diff(want, parseCounters(text)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseCounters(f *testing.F) {
	f.Add("  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range parseCounters(text) {
			if c.Name == "lo" {
				t.Error("lo is listed")
			}
		}
	})
}
