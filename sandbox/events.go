package sandbox

import (
	"context"
	"errors"
	"sync"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrBehind ends the events of a subscriber that reads them too slowly; ErrStopping those of a daemon that ends.
var (
	ErrBehind   = errors.New("events were not read in time and the stream is cut; list pods and containers, and subscribe again")
	ErrStopping = errors.New("the daemon is stopping; subscribe again when it serves")
)

// eventBuffer is how many events a subscriber may be behind.
const eventBuffer = 1024

// events hands what happens to containers and pods to all who subscribed, in the same order to each. Nobody who makes
// an event waits for anybody who reads it. An event of a container or pod is made under its pod's mutex, so those of
// one pod come in the order in which they happened.
type events struct {
	mu      sync.Mutex
	subs    map[*Subscription]bool
	dropped uint64 // subscribers
	closed  bool
}

func newEvents() *events { return &events{subs: map[*Subscription]bool{}} }

// Subscription is one reader of events, from the moment of its making.
type Subscription struct {
	from *events
	list chan *criapi.ContainerEventResponse
	end  chan struct{} // closed when why is set
	why  error
}

// Events subscribes. Close the subscription.
func (m *Manager) Events() *Subscription {
	s := &Subscription{from: m.events, list: make(chan *criapi.ContainerEventResponse, eventBuffer), end: make(chan struct{})}
	m.events.mu.Lock()
	defer m.events.mu.Unlock()
	if m.events.closed {
		s.cut(ErrStopping)
		return s
	}
	m.events.subs[s] = true
	return s
}

// EndEvents ends all subscriptions, for the daemon to stop.
func (m *Manager) EndEvents() {
	m.events.mu.Lock()
	defer m.events.mu.Unlock()
	m.events.closed = true
	for s := range m.events.subs {
		s.cut(ErrStopping)
	}
	clear(m.events.subs)
}

// Next gives the next event, or why there is none any more. What was missed is never skipped silently: a subscriber
// that fell behind gets none of what it has not read yet.
func (s *Subscription) Next(ctx context.Context) (*criapi.ContainerEventResponse, error) {
	select {
	case <-s.end:
		return nil, s.why
	default:
	}
	select {
	case e := <-s.list:
		return e, nil
	case <-s.end:
		return nil, s.why
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Done is closed when the subscription was ended by us.
func (s *Subscription) Done() <-chan struct{} { return s.end }

// Close unsubscribes.
func (s *Subscription) Close() {
	s.from.mu.Lock()
	defer s.from.mu.Unlock()
	delete(s.from.subs, s)
}

// cut is called once, with the hub's mutex held and before or while s leaves it.
func (s *Subscription) cut(why error) {
	s.why = why
	close(s.end)
}

// wanted says whether anybody listens, before an event is put together.
func (e *events) wanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subs) > 0
}

// send returns how many subscribers were dropped for it, and how many ever were.
func (e *events) send(event *criapi.ContainerEventResponse) (now, ever uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subs {
		select {
		case s.list <- event:
		default:
			now++
			s.cut(ErrBehind)
			delete(e.subs, s)
		}
	}
	e.dropped += now
	return now, e.dropped
}

// tell makes an event of a pod or of one of its containers, with the state of the whole pod as it is now: the kubelet
// takes it for a relist. Caller holds the pod's mutex.
func (m *Manager) tell(p *Pod, id string, kind criapi.ContainerEventType) {
	if !m.events.wanted() {
		return
	}
	event := &criapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano(), PodSandboxStatus: p.status()}
	for _, c := range p.containers {
		if c.state != ctrCreating && c.state != ctrRemoving {
			event.ContainersStatuses = append(event.ContainersStatuses, m.containerStatus(c))
		}
	}
	if now, ever := m.events.send(event); now > 0 {
		m.log.Warn("drop subscribers of events that do not read them", "pod", p.ID, "dropped", now, "ever", ever)
	}
}
