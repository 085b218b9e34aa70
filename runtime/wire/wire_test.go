package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

var full = Message{
	Type: TypeSpawn, Seq: 7, ID: "c1", Pod: "p1", Kind: Exec, PID: 4711, StartTime: 1 << 40, CloneFlags: 0x20020000, Slots: []int32{0, 1, 2, 9},
	Dir: "/run/x", Log: "/var/log/x", Terminal: true, Timeout: -1, KillFile: "/sys/fs/cgroup/x", Exited: true, Status: 0x8b, At: 1 << 60, TimedOut: true,
	Unknown: true, Dropped: 3, Errno: 13, Error: "open log",
}

func TestRoundTrip(t *testing.T) {
	for _, m := range []Message{full, {Type: TypeHello}} {
		got, err := Decode(m.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, *got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// A newer peer may add fields at the end.
func TestDecodeIgnoresWhatFollows(t *testing.T) {
	if _, err := Decode(append(full.Encode(), "more"...)); err != nil {
		t.Errorf("Decode with trailing bytes: %v", err)
	}
}

func TestDecodeRefusesEveryTruncation(t *testing.T) {
	b := full.Encode()
	for n := range len(b) {
		if _, err := Decode(b[:n]); err == nil {
			t.Errorf("Decode of the first %d of %d bytes gave no error", n, len(b))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(full.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Decode(b); err == nil {
			if _, err := Decode(m.Encode()); err != nil {
				t.Fatalf("encoded again it does not decode: %v", err)
			}
		}
	})
}
