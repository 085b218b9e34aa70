package join

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestConcurrentCallsShareOneRun(t *testing.T) {
	var g Group[string, int]
	var runs atomic.Int32
	started, release := make(chan struct{}), make(chan struct{})
	work := func(context.Context) (int, error) {
		if runs.Add(1) == 1 {
			close(started)
		}
		<-release
		return 7, nil
	}
	var wg sync.WaitGroup
	do := func() {
		defer wg.Done()
		if v, _, err := g.Do(t.Context(), "k", work); v != 7 || err != nil {
			t.Errorf("Do = %d, %v; want 7, nil", v, err)
		}
	}
	wg.Add(1)
	go do()
	<-started
	for range 5 {
		wg.Add(1)
		go do()
	}
	for waiters(&g, "k") < 6 {
	}
	close(release)
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("work ran %d times, want 1", runs.Load())
	}
}

func TestWorkOutlivesAllButTheLastCaller(t *testing.T) {
	var g Group[string, int]
	first, cancelFirst := context.WithCancel(t.Context())
	second, cancelSecond := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	work := func(ctx context.Context) (int, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, ctx.Err()
	}
	errs := make(chan error, 2)
	go func() { _, _, err := g.Do(first, "k", work); errs <- err }()
	for waiters(&g, "k") < 1 {
	}
	go func() { _, _, err := g.Do(second, "k", work); errs <- err }()
	for waiters(&g, "k") < 2 {
	}
	cancelFirst()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Fatalf("first caller got %v", err)
	}
	select {
	case <-ended:
		t.Fatal("work was cancelled while a caller still waited")
	default:
	}
	cancelSecond()
	<-errs
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("work ended with %v", err)
	}
}

func waiters(g *Group[string, int], key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		return c.waiters
	}
	return 0
}

func TestWaitSeesWorkThatEverybodyGaveUp(t *testing.T) {
	var g Group[string, int]
	g.Wait() // of nothing
	ctx, cancel := context.WithCancel(t.Context())
	started, ended := make(chan struct{}), make(chan struct{})
	go func() {
		<-started
		cancel()
	}()
	_, _, err := g.Do(ctx, "k", func(ctx context.Context) (int, error) {
		close(started)
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond)
		close(ended)
		return 0, nil
	})
	if err == nil {
		t.Error("a caller who gave up got no error")
	}
	g.Wait()
	select {
	case <-ended:
	default:
		t.Error("Wait returned while the work ran")
	}
}
