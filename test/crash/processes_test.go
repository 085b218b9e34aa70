package crash

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pidsFile is where the machine's processes are limited and counted.
func pidsFile(t testing.TB, name string) string {
	t.Helper()
	for _, root := range hierarchies(t) {
		path := filepath.Join(root, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("the machine has no limit on processes")
	return ""
}

// TestOutOfProcesses: where no process and no thread can be made any more, the Go runtime ends a program that wants
// one, the daemon or a monitor too. Whoever has ended comes back, what runs has run on, and nothing is left.
func TestOutOfProcesses(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("resident"))
	c := p.run("a", "exec sleep 1000") // a shell that cannot fork would end
	until(t, "the container is not what it will be", func() bool {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(c.pid()) + "/comm")
		return string(b) == "sleep\n"
	})
	want := n.steady() // before any pod is removed: a link goes in its own time, and would be missing afterwards
	n.lap("warm", c)
	limit, current := pidsFile(t, "pids.max"), pidsFile(t, "pids.current")
	set := func(v string) {
		t.Helper()
		if err := os.WriteFile(limit, []byte(v), 0); err != nil {
			t.Fatal(err)
		}
	}
	defer set("max")
	errs, ends := 0, 0
	for _, free := range []int{-1000, -1000, 0, 0, 1, 2, 3, 4, 6, 9} {
		b, err := os.ReadFile(current)
		if err != nil {
			t.Fatal(err)
		}
		now, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		set(strconv.Itoa(max(now+free, 1)))
		began := time.Now()
		done := make(chan []error, 1)
		go func() { done <- n.lap("few"+strconv.Itoa(free), nil) }()
		var failed []error
		select {
		case failed = <-done:
			set("max")
		case <-time.After(20 * time.Second): // it waits for what cannot come now
			set("max")
			failed = <-done
		}
		errs += len(failed)
		for _, err := range failed {
			t.Logf("with %d processes free, after %v: %.300v", free, time.Since(began).Round(time.Millisecond), err)
		}
		if n.hasEnded(0) {
			ends++
			n.conn.Close()
			n.start()
		}
		c.mustRun()
		n.removeAll(p.id)
		if failed := n.lap("many", c); len(failed) > 0 {
			t.Fatalf("with many processes again: %v", errors.Join(failed...))
		}
	}
	t.Logf("= with no process free, or a few: %d errors, the daemon ended %d times", errs, ends)
	n.mustLookLike(want, settled)
	p.remove()
	n.mustBeEmpty()
	n.stop()
}
