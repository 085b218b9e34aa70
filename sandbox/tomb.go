package sandbox

import (
	"sync"
	"time"
)

// burier writes pods into the tomb behind the requests' backs: a rename over a file makes ext4 flush it, which costs
// a start milliseconds, and what the tomb holds matters after a reboot only. A pod that changes again before its turn
// is written once.
type burier struct {
	mu    sync.Mutex
	dirty map[*Pod]bool
	wake  chan struct{} // holds one
	write sync.Mutex    // held while a pod is written: its removal waits
}

func newBurier() *burier { return &burier{dirty: map[*Pod]bool{}, wake: make(chan struct{}, 1)} }

// bury has the pod's present state written soon.
func (m *Manager) bury(p *Pod) {
	m.burier.mu.Lock()
	m.burier.dirty[p] = true
	m.burier.mu.Unlock()
	select {
	case m.burier.wake <- struct{}{}:
	default:
	}
}

func (m *Manager) watchTomb() {
	for range m.burier.wake {
		m.burier.mu.Lock()
		pods := m.burier.dirty
		m.burier.dirty = map[*Pod]bool{}
		m.burier.mu.Unlock()
		for p := range pods {
			m.buryNow(p)
		}
	}
}

// buryAgain is when a pod that could not be written, for want of space perhaps, has its next turn.
const buryAgain = 30 * time.Second

// buryNow writes a pod that is still there. It is not fatal when that fails.
func (m *Manager) buryNow(p *Pod) {
	m.burier.write.Lock()
	defer m.burier.write.Unlock()
	p.mu.Lock()
	gone := p.gone
	e, err := p.entry(m.cfg.Facts.BootID)
	p.mu.Unlock()
	if gone {
		return
	}
	if err == nil {
		err = m.tomb.Write(p.ID, e)
	}
	if err != nil {
		m.log.Warn("write pod to the tomb; it is tried again", "pod", p.ID, "err", err)
		time.AfterFunc(buryAgain, func() { m.bury(p) })
	}
}

// exhume removes a pod from the tomb for good.
func (m *Manager) exhume(p *Pod) error {
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	m.burier.write.Lock()
	defer m.burier.write.Unlock()
	return m.tomb.Remove(p.ID)
}
