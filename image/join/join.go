// Package join lets callers that ask for the same thing at the same time share one run of the work.
//
// It owns no data beyond the calls in progress. Only image and image/store import it.
// Invariant: the work runs while at least one caller still waits for it, and no longer; a caller that gives up
// never takes the others down with it.
package join

import (
	"context"
	"fmt"
	"sync"
)

// Group is a set of calls in progress, by key. The zero value is ready to use.
type Group[K comparable, V any] struct {
	mu      sync.Mutex
	calls   map[K]*call[V]
	running int             // works that have not ended, those that nobody waits for included
	idle    []chan struct{} // closed when running becomes 0
}

type call[V any] struct {
	waiters int
	cancel  context.CancelCauseFunc
	done    chan struct{}
	val     V
	err     error
}

// Do runs work, or waits for the run of another caller with the same key. joined tells which; a joined error came from
// the other caller's work and may not apply to this one (other credentials, say).
//
// work gets a context that keeps the first caller's values but outlives that caller: it is cancelled when the last
// waiting caller has given up.
func (g *Group[K, V]) Do(ctx context.Context, key K, work func(context.Context) (V, error)) (val V, joined bool, err error) {
	if err := ctx.Err(); err != nil {
		return val, false, context.Cause(ctx)
	}
	c, joined := g.enter(ctx, key, work)
	select {
	case <-c.done:
		return c.val, joined, c.err
	case <-ctx.Done():
		g.leave(key, c, context.Cause(ctx))
		return val, joined, context.Cause(ctx)
	}
}

func (g *Group[K, V]) enter(ctx context.Context, key K, work func(context.Context) (V, error)) (*call[V], bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		c.waiters++
		return c, true
	}
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c := &call[V]{waiters: 1, cancel: cancel, done: make(chan struct{})}
	if g.calls == nil {
		g.calls = make(map[K]*call[V])
	}
	g.calls[key] = c
	g.running++
	go func() {
		defer g.ended()
		defer cancel(nil)
		defer func() {
			// A panic in a detached goroutine would take the daemon and every caller's news with it.
			if p := recover(); p != nil {
				c.err = fmt.Errorf("panic: %v", p)
			}
			g.forget(key, c)
			close(c.done)
		}()
		c.val, c.err = work(run)
	}()
	return c, false
}

// leave takes one waiter off. The last one cancels the work and takes it off the map, so that a caller who comes a
// moment later starts afresh instead of joining a dying run.
func (g *Group[K, V]) leave(key K, c *call[V], cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.waiters--
	if c.waiters > 0 {
		return
	}
	c.cancel(cause)
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}

func (g *Group[K, V]) forget(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}

func (g *Group[K, V]) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running--; g.running > 0 {
		return
	}
	for _, c := range g.idle {
		close(c)
	}
	g.idle = nil
}

// Wait blocks until no work runs, not even one that everybody has given up on.
func (g *Group[K, V]) Wait() {
	g.mu.Lock()
	if g.running == 0 {
		g.mu.Unlock()
		return
	}
	c := make(chan struct{})
	g.idle = append(g.idle, c)
	g.mu.Unlock()
	<-c
}
