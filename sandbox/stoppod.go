package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// undoLimit bounds a clean-up, which goes on when its caller has gone.
const undoLimit = 2 * time.Minute

// StopPod ends all containers of a pod and gives back its network, namespaces and cgroups. A pod that is stopped,
// or unknown, is success.
func (m *Manager) StopPod(ctx context.Context, id string) error {
	p, err := m.pod(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = m.join(ctx, "stop "+p.ID, func(ctx context.Context) (string, error) { return p.ID, m.stopPod(ctx, p) })
	return err
}

func (m *Manager) stopPod(ctx context.Context, p *Pod) error {
	p.mu.Lock()
	if p.state == podStopped || p.state == podRemoving {
		p.mu.Unlock()
		return nil
	}
	if err := p.setEnding(podStopping); err != nil {
		p.mu.Unlock()
		return err
	}
	ctrs := slices.Collect(maps.Values(p.containers))
	p.mu.Unlock()
	if err := settle(ctx, ctrs...); err != nil {
		return err
	}
	p.mu.Lock()
	running := p.running()
	p.mu.Unlock()
	if err := m.killAll(ctx, running); err != nil {
		return err
	}
	if err := m.release(ctx, p, func(o plan.Object) bool { return o.Kind != plan.Dir && o.Kind != plan.Lend }); err != nil {
		return fmt.Errorf("stop pod sandbox %s: %w", p.ID, err)
	}
	m.cfg.Engine.Forget(p.ID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.setEnding(podStopped); err != nil {
		return err
	}
	m.bury(p)
	m.tell(p, p.ID, criapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	return nil
}

// running lists the containers whose process lives. Caller holds mu.
func (p *Pod) running() []*Container {
	var out []*Container
	for _, c := range p.containers {
		if c.state == ctrRunning {
			out = append(out, c)
		}
	}
	return out
}

// killAll kills the containers at once and waits until the end of each is recorded.
func (m *Manager) killAll(ctx context.Context, ctrs []*Container) error {
	for _, c := range ctrs {
		_ = m.cfg.Engine.Signal(c.ID, unix.SIGKILL)
	}
	for _, c := range ctrs {
		if err := m.awaitKilled(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// release undoes those live objects of a pod that pick chooses, last made first. It goes on past errors.
func (m *Manager) release(ctx context.Context, p *Pod, pick func(plan.Object) bool) error {
	if p.journal == nil {
		return m.releaseOld(ctx, p)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	var errs []error
	live := p.journal.Live("")
	for i := len(live) - 1; i >= 0; i-- {
		if !pick(live[i]) {
			continue
		}
		if err := m.releaseObject(ctx, p, live[i]); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, p.journal.Release(live[i]))
	}
	return errors.Join(errs...)
}

func (m *Manager) releaseObject(ctx context.Context, p *Pod, o plan.Object) error {
	switch o.Kind {
	case plan.Attachment:
		return m.detach(ctx, p, o)
	case plan.Lend:
		return m.cfg.Images.Return(o.Name, o.Owner)
	case plan.Dir:
		if o.Name == p.dir {
			return nil // holds the journal: goes last, in bury's place
		}
	}
	return m.cfg.Engine.Release(ctx, o)
}

// detach uses the record with the addresses if the attach got that far, else the one of the intent.
func (m *Manager) detach(ctx context.Context, p *Pod, o plan.Object) error {
	att := p.att
	if att == nil {
		att = &netns.Attachment{}
		if err := json.Unmarshal(o.Data, att); err != nil {
			return fmt.Errorf("decode network attachment of pod %s: %w", p.ID, err)
		}
	}
	if err := m.cfg.Network.Detach(ctx, att); err != nil {
		return err
	}
	// The host's end goes when the namespace does, tens of milliseconds later. Its address rests meanwhile, so that
	// nothing collides with it and nobody need wait.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
		defer cancel()
		if err := m.cfg.Network.WaitGone(ctx, att); err != nil {
			m.log.Warn("wait for the pod's interface to go", "pod", p.ID, "err", err)
		}
	}()
	return nil
}

// Attachments are the network attachments of all pods.
func (m *Manager) Attachments() []*netns.Attachment {
	var out []*netns.Attachment
	for _, p := range m.allPods() {
		p.mu.Lock()
		if p.att != nil && p.state != podStopped {
			out = append(out, p.att)
		}
		p.mu.Unlock()
	}
	return out
}

// releaseOld gives back what a pod of an earlier boot still has: its lease, perhaps a plugin's state.
func (m *Manager) releaseOld(ctx context.Context, p *Pod) error {
	if p.att == nil {
		return nil
	}
	if err := m.cfg.Network.Detach(ctx, p.att); err != nil {
		return err
	}
	p.att = nil
	return nil
}

// RemovePod removes a pod with its containers. It is stopped first if need be. Unknown is success.
func (m *Manager) RemovePod(ctx context.Context, id string) error {
	p, err := m.pod(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = m.join(ctx, "remove "+p.ID, func(ctx context.Context) (string, error) {
		if err := m.StopPod(ctx, p.ID); err != nil {
			return "", err
		}
		p.mu.Lock()
		err := p.setEnding(podRemoving)
		p.mu.Unlock()
		if err != nil {
			return "", err
		}
		return p.ID, m.discard(ctx, p)
	})
	return err
}

// discard undoes all that a pod has and forgets it. On an error the pod stays known, so that a retry can go on.
func (m *Manager) discard(ctx context.Context, p *Pod) error {
	p.mu.Lock()
	ctrs := slices.Collect(maps.Values(p.containers))
	p.mu.Unlock()
	if err := m.release(ctx, p, func(plan.Object) bool { return true }); err != nil {
		return fmt.Errorf("remove pod sandbox %s: %w", p.ID, err)
	}
	for _, c := range ctrs {
		m.cfg.Engine.Ack(c.ID)
	}
	m.cfg.Engine.Forget(p.ID)
	if err := m.exhume(p); err != nil {
		return err
	}
	if p.journal != nil {
		if err := p.journal.Remove(); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("remove pod directory: %w", err)
	}
	m.forget(p, ctrs)
	return nil
}

// forget takes a pod out of what is listed, and tells so, if it ever was listed.
func (m *Manager) forget(p *Pod, ctrs []*Container) {
	m.mu.Lock()
	delete(m.pods, p.ID)
	delete(m.levels, p.level)
	for _, c := range ctrs {
		delete(m.ctrs, c.ID)
	}
	m.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := p.state == podRemoving
	for _, c := range ctrs {
		m.layers.forget(m.upper(c.ID))
		delete(p.containers, c.ID)
		if listed {
			m.tell(p, c.ID, criapi.ContainerEventType_CONTAINER_DELETED_EVENT)
		}
	}
	if listed {
		m.tell(p, p.ID, criapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	}
}
