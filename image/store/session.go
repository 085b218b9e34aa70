package store

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Session collects the layers of one image until Commit. It keeps them from being collected.
type Session struct {
	s    *Store
	mu   sync.Mutex
	held []digest.Digest
}

// Begin starts a session. Close must follow.
func (s *Store) Begin() *Session { return &Session{s: s} }

// Layer makes sure that the layer with this diff id is there. fill runs only if it is not, and once for all sessions
// that want it at the same time; if another session's fill fails, this one's is tried.
func (w *Session) Layer(ctx context.Context, diffID digest.Digest, fill Fill) error {
	for {
		if w.s.hold(diffID) {
			w.mu.Lock()
			w.held = append(w.held, diffID)
			w.mu.Unlock()
			return nil
		}
		_, joined, err := w.s.fills.Do(ctx, diffID, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, w.s.fillOnce(ctx, diffID, fill)
		})
		if err != nil && (!joined || ctx.Err() != nil) {
			return err
		}
	}
}

// fillOnce makes a layer, unless it has come meanwhile: one who looked before another's fill had ended, and asks for the
// fill only after that, joins nobody.
func (s *Store) fillOnce(ctx context.Context, diffID digest.Digest, fill Fill) error {
	s.mu.Lock()
	_, there := s.layers[diffID]
	s.mu.Unlock()
	if there {
		return nil
	}
	_, err := s.makeLayer(ctx, diffID, fill)
	return err
}

// Close lets the layers go. With discard set, those that nothing else needs are removed, for a pull that could not
// succeed if it were tried again; otherwise they wait for the next try.
func (w *Session) Close(discard bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.s.unhold(w.held)
	w.held = nil
	if !discard {
		return nil
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.collect()
}
