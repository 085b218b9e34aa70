package crash

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLoudContainers: two containers print as fast as their monitor can carry it, one of them without ever ending a line.
// Beside them, on the same monitor, execs are quick, and nobody's memory grows.
func TestLoudContainers(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	if err := os.MkdirAll(n.logs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", n.logs, "tmpfs", 0, "size=2g"); err != nil {
		t.Fatal(err)
	}
	n.start()
	p := n.runPod(n.podConfig("loud"))
	quiet := n.runPod(n.podConfig("quiet")).run("c", "while :; do sleep 0.05; done")
	monitors := n.monitors()
	began := time.Now()
	endless := p.run("endless", "dd if=/dev/zero bs=64k")
	lines := p.run("lines", "yes "+string(make200())+" | dd bs=64k")
	var took []time.Duration
	for time.Since(began) < 4*time.Second {
		at := time.Now()
		if r := quiet.exec(20, "exit 3"); r.ExitCode != 3 {
			t.Fatalf("exec: %v", r)
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	rate := func(c *container) float64 {
		st, err := os.Stat(c.log)
		if err != nil {
			t.Fatal(err)
		}
		return float64(st.Size()) / time.Since(began).Seconds() / 1e6
	}
	t.Logf("= beside logs of %.0f MB/s without and %.0f MB/s with lines: %d execs, median %v, slowest %v; the monitor's memory had a peak of %d KB, the daemon's of %d",
		rate(endless), rate(lines), len(took), took[len(took)/2].Round(time.Millisecond/10), took[len(took)-1].Round(time.Millisecond), peak(t, monitors[0]), peak(t, n.daemon.Process.Pid))
	if slowest := took[len(took)-1]; slowest > 3*time.Second {
		t.Errorf("an exec beside loud containers took %v", slowest)
	}
	if kb := peak(t, monitors[0]); kb > 32<<10 {
		t.Errorf("the monitor of loud containers had %d KB", kb)
	}
	p.remove()
	n.removeAll("")
	n.mustBeEmpty()
}

// make200 is a line of 200 bytes.
func make200() []byte {
	b := make([]byte, 200)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the most memory that a process has had, in KiB.
func peak(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	m := highWater.FindSubmatch(b)
	if m == nil {
		t.Fatalf("status of process %d has no VmHWM", pid)
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return kb
}
