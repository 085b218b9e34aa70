package sandbox

import (
	"context"
	"errors"
	"fmt"
)

// errStopped is why a start was given up.
var errStopped = errors.New("it was stopped while it started")

// starting is a start in progress. It goes on without the pod's mutex: one that hangs, at a volume whose server is gone
// or because its monitor is stopped, must keep neither lists nor the removal of its pod waiting.
type starting struct {
	giveUp context.CancelCauseFunc
	done   chan struct{} // closed when the container runs or is exited
}

// begin makes the context that a start works under. Caller holds the pod's mutex.
func (c *Container) begin(ctx context.Context) context.Context {
	ctx, giveUp := context.WithCancelCause(ctx)
	c.starting = &starting{giveUp: giveUp, done: make(chan struct{})}
	return ctx
}

// settled tells whoever waits that the start is over. Caller holds the pod's mutex.
func (c *Container) settled() {
	c.starting.giveUp(nil)
	close(c.starting.done)
	c.starting = nil
}

// lockSettled takes the pod's mutex when no start of the container is in progress.
func (c *Container) lockSettled() {
	for {
		c.pod.mu.Lock()
		s := c.starting
		if s == nil {
			return
		}
		c.pod.mu.Unlock()
		<-s.done
	}
}

// settle gives up those of the containers' starts that are in progress, and waits until they are over.
func settle(ctx context.Context, ctrs ...*Container) error {
	begun := map[string]*starting{}
	for _, c := range ctrs {
		c.pod.mu.Lock()
		if c.starting != nil {
			begun[c.ID] = c.starting
			c.starting.giveUp(errStopped)
		}
		c.pod.mu.Unlock()
	}
	for id, s := range begun {
		select {
		case <-s.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for the start of container %s, which was given up: %w", id, ctx.Err())
		}
	}
	return nil
}
