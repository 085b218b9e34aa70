package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGoThread: not one of many runs on the first thread, which could not end, and all the threads end.
func TestGoThread(t *testing.T) {
	var mu sync.Mutex
	tids := map[int]bool{}
	// Goroutines that come and go bring the scheduler to use the first thread too: without the detour one in some
	// dozens runs there.
	for range 50 {
		var wg sync.WaitGroup
		for range 20 {
			wg.Add(2)
			go wg.Done()
			GoThread(func() {
				defer wg.Done()
				time.Sleep(10 * time.Microsecond)
				mu.Lock()
				defer mu.Unlock()
				tids[unix.Gettid()] = true
			})
		}
		wg.Wait()
	}
	if tids[unix.Getpid()] {
		t.Error("ran on the first thread of the process")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := 0
		for tid := range tids {
			if _, err := os.Stat(fmt.Sprint("/proc/self/task/", tid)); !errors.Is(err, fs.ErrNotExist) {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d threads are left", left, len(tids))
		}
	}
}
