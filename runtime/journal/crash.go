package journal

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The environment of a crash test. CRI_MINI_CRASH is "before:N" or "after:N" and
// makes the process kill itself around the N-th record that it appends, in
// whatever journal; CRI_MINI_CRASH_COUNT names a file that gets a line for every
// record, "N pod verb kind name", so that a test can count the points and print
// what each one is.
const (
	crashEnv      = "CRI_MINI_CRASH"
	crashCountEnv = "CRI_MINI_CRASH_COUNT"
)

// crash is the process's crash point; without the environment it does nothing.
var crash = newCrashPoint(os.Getenv(crashEnv), os.Getenv(crashCountEnv))

type crashPoint struct {
	mu     sync.Mutex
	n      int // records so far
	at     int // 0 for never
	early  bool
	log    *os.File
	active bool
}

// newCrashPoint panics on a wrong value: a test that never crashes would pass.
func newCrashPoint(at, countFile string) *crashPoint {
	c := &crashPoint{active: at != "" || countFile != ""}
	if at != "" {
		when, number, _ := strings.Cut(at, ":")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || when != "before" && when != "after" {
			panic(fmt.Sprintf("%s=%q: want before:N or after:N", crashEnv, at))
		}
		c.at, c.early = n, when == "before"
	}
	if countFile != "" {
		f, err := os.OpenFile(countFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", crashCountEnv, err))
		}
		c.log = f
	}
	return c
}

// before counts a record that is about to be written and keeps every other
// append out until after: else a second journal could write past the point.
func (c *crashPoint) before(pod string, r *record) {
	if !c.active {
		return
	}
	c.mu.Lock()
	c.n++
	if c.log != nil {
		fmt.Fprintf(c.log, "%d %s %s %s %s\n", c.n, pod, r.Verb, r.Kind, r.Name)
	}
	if c.early && c.n == c.at {
		die()
	}
}

// after ends what before began; written says whether the record is in the file.
func (c *crashPoint) after(written bool) {
	if !c.active {
		return
	}
	if written && !c.early && c.n == c.at {
		die()
	}
	c.mu.Unlock()
}

// die does not come back: SIGKILL to oneself is acted upon at the latest on the
// way out of kill(2), but other threads may still run a little, hence the lock
// that stays held.
func die() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}
