package sandbox

import (
	"fmt"
	"testing"
)

func TestPeers(t *testing.T) {
	const info = `22 27 0:21 / / rw,relatime - ext4 /dev/vda rw
23 22 0:22 / /shared rw shared:4 - tmpfs tmpfs rw
24 22 0:23 / /slave rw master:4 - tmpfs tmpfs rw
25 22 0:24 / /both rw shared:5 master:4 propagate_from:2 - tmpfs shared:1 rw
26 22 0:25 / /fake rw - tmpfs shared:1 rw
`
	for id, want := range map[uint64]string{
		22: "/ false false", 23: "/shared true false", 24: "/slave false true", 25: "/both true true", 26: "/fake false false", 2: " false false",
	} {
		point, shared, slave := peers([]byte(info), id)
		if got := fmt.Sprint(point, " ", shared, " ", slave); got != want {
			t.Errorf("mount %d: %s, want %s", id, got, want)
		}
	}
}

func FuzzPeers(f *testing.F) {
	f.Add([]byte("23 22 0:22 / /shared rw shared:4 - tmpfs tmpfs rw\n"), uint64(23))
	f.Fuzz(func(t *testing.T, info []byte, id uint64) { peers(info, id) })
}
