package cri

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"
)

// A ticket is good for one use within a minute; at most maxTickets wait to be used. Both are what other runtimes have.
const (
	ticketLife = time.Minute
	maxTickets = 1000
)

// tickets are the sessions that clients were told of and have not begun. The zero value is ready.
type tickets struct {
	mu   sync.Mutex
	open map[string]ticket
}

type ticket struct {
	handler http.HandlerFunc
	expires time.Time
}

// issue gives a name, which nobody can guess, for a handler.
func (t *tickets) issue(h http.HandlerFunc) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for name, old := range t.open {
		if now.After(old.expires) {
			delete(t.open, name)
		}
	}
	if len(t.open) >= maxTickets {
		return "", false
	}
	if t.open == nil {
		t.open = map[string]ticket{}
	}
	name := rand.Text()
	t.open[name] = ticket{h, now.Add(ticketLife)}
	return name, true
}

// redeem gives the handler, once; nil for what is no ticket, or no longer.
func (t *tickets) redeem(name string) http.HandlerFunc {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.open[name]
	delete(t.open, name)
	if !ok || time.Now().After(found.expires) {
		return nil
	}
	return found.handler
}
