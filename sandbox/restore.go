package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/journal"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// restore brings back the pods of the daemon before, then those of the boot before. A pod whose journal cannot be
// read is put aside and reported; the others are served. Nobody else uses the maps yet.
func (m *Manager) restore(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(m.cfg.RunDir, "pods"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list pods: %w", err)
	}
	known := map[string]engine.Known{}
	for _, k := range m.cfg.Known {
		if k.ID != "" {
			known[k.ID] = k
		}
	}
	for _, e := range entries {
		if err := m.restorePod(ctx, e.Name(), known); err != nil {
			m.log.Error("restore pod", "pod", e.Name(), "err", err)
		}
	}
	m.restoreTomb(ctx)
	m.sweepLayers()
	return nil
}

// finishAll does what the daemon before had begun with its pods. The ends of containers must be read meanwhile: it
// kills some, and waits until their end is recorded.
func (m *Manager) finishAll(ctx context.Context) {
	for _, p := range m.allPods() {
		if err := m.finish(ctx, p); err != nil {
			m.log.Error("finish what was begun with pod", "pod", p.ID, "err", err)
		}
	}
	for _, k := range m.cfg.Known { // pods that are gone although a monitor still serves them
		if _, err := m.pod(k.Pod); err != nil {
			m.cfg.Engine.Forget(k.Pod)
		}
	}
}

func (m *Manager) restorePod(ctx context.Context, id string, known map[string]engine.Known) error {
	path := filepath.Join(podDir(m.cfg.RunDir, id), "journal")
	j, err := journal.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(podDir(m.cfg.RunDir, id)) // its removal was cut short at the very end, or its making at the start
	}
	var corrupt *journal.CorruptError
	if errors.As(err, &corrupt) {
		return errors.Join(err, m.quarantine(ctx, id, path))
	}
	if err != nil {
		return err
	}
	var rec podRecord
	found, err := j.ReadNote(notePod, id, &rec)
	if err == nil && !found {
		// Nothing but the journal itself was made before the first note.
		return errors.Join(j.Remove(), os.RemoveAll(podDir(m.cfg.RunDir, id)))
	}
	var p *Pod
	if err == nil {
		p, err = rec.pod(id, m.cfg.RunDir)
	}
	if err != nil {
		return errors.Join(err, j.Close(), m.quarantine(ctx, id, path))
	}
	p.journal = j
	if p.spec, err = oci.Pod(oci.PodInput{ID: id, Config: p.Config, RunDir: m.cfg.RunDir, Facts: m.facts(p)}); err != nil {
		m.log.Warn("make spec of pod again", "pod", id, "err", err)
	}
	if err := m.recoverPodUpdate(p); err != nil {
		m.log.Error("take back an update that was cut short", "pod", id, "err", err)
	}
	m.pods[id] = p
	if p.level != "" {
		m.levels[p.level] = id
	}
	for _, cid := range j.NoteIDs(noteContainer) {
		if err := m.restoreContainer(ctx, p, cid, known); err != nil {
			m.log.Error("restore container", "pod", id, "ctr", cid, "err", err)
		}
	}
	return nil
}

// finish does what the daemon before had begun with a pod.
func (m *Manager) finish(ctx context.Context, p *Pod) error {
	p.mu.Lock()
	state, running := p.state, p.running()
	p.mu.Unlock()
	switch state {
	case podCreating, podRemoving:
		return errors.Join(m.killAll(ctx, running), m.discard(ctx, p))
	case podStopping:
		return m.stopPod(ctx, p)
	}
	return nil
}

// quarantine releases what can be read of a damaged journal and moves the file out of the way.
func (m *Manager) quarantine(ctx context.Context, id, path string) error {
	objects, err := journal.Salvage(path)
	p := &Pod{ID: id, dir: podDir(m.cfg.RunDir, id)}
	for i := len(objects) - 1; i >= 0; i-- {
		err = errors.Join(err, m.releaseObject(ctx, p, objects[i]))
	}
	aside := filepath.Join(m.cfg.StateDir, "quarantine")
	if e := os.MkdirAll(aside, 0o700); e != nil {
		return errors.Join(err, e)
	}
	b, e := os.ReadFile(path)
	if e == nil {
		e = os.WriteFile(filepath.Join(aside, id+".journal"), b, 0o600)
	}
	m.log.Error("journal is damaged; what it names was released and a copy kept", "pod", id, "obj", filepath.Join(aside, id+".journal"))
	return errors.Join(err, e, m.tomb.Remove(id), os.RemoveAll(p.dir))
}

func (m *Manager) restoreContainer(ctx context.Context, p *Pod, id string, known map[string]engine.Known) error {
	var rec containerRecord
	if _, err := p.journal.ReadNote(noteContainer, id, &rec); err != nil {
		return err
	}
	c, err := rec.container(id, p)
	if err != nil {
		return err
	}
	if c.state == ctrCreating || c.state == ctrRemoving {
		if k, ok := known[id]; ok && !k.Running {
			m.cfg.Engine.Ack(id)
		}
		return m.undoContainer(ctx, p, id)
	}
	if err := c.loadSpec(); err != nil {
		m.log.Warn("read spec of container again", "pod", p.ID, "ctr", id, "err", err)
	}
	if err := m.recoverUpdate(c); err != nil {
		m.log.Error("take back an update that was cut short", "pod", p.ID, "ctr", id, "err", err)
	}
	for _, image := range c.images() {
		if _, err := m.cfg.Images.Lend(image, c.ID, ""); err != nil {
			m.log.Warn("lend image again", "pod", p.ID, "ctr", id, "err", err)
		}
	}
	p.containers[id], m.ctrs[id] = c, c
	if c.state == ctrStarting || c.state == ctrRunning {
		return m.reattach(ctx, c, known)
	}
	if k, ok := known[id]; ok && !k.Running {
		m.cfg.Engine.Ack(id)
	}
	return nil
}

// reattach finds out what became of a container that was starting or running. In the middle of a start its
// program may run, or its init waits at a barrier for a daemon that is gone.
func (m *Manager) reattach(ctx context.Context, c *Container, known map[string]engine.Known) error {
	p := c.pod
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := known[c.ID]
	if c.state == ctrStarting {
		// The caller of that start never heard of it: begin again. Its init, or its program, ends here.
		err := m.releaseProcess(ctx, c)
		m.cfg.Engine.Ack(c.ID)
		// Its layer too: the kernel does not mount a volatile overlay a second time on the same work directory.
		return errors.Join(err, m.cfg.Engine.Release(ctx, plan.Object{Kind: plan.Dir, Name: m.layer(c.ID)}), m.makeLayer(c), c.setState(ctrCreated))
	}
	if ok && k.Running {
		m.cfg.Engine.Place(c.ID, c.dir(), c.Log)
		return nil
	}
	if !ok {
		var pn engine.ProcessNote
		if found, err := p.journal.ReadNote(engine.NoteProcess, c.ID, &pn); err != nil || !found {
			k = engine.Known{ID: c.ID, Pod: p.ID, Exit: engine.Exit{Unknown: true, Code: engine.UnknownExit}}
		} else {
			k = engine.Known{ID: c.ID, Pod: p.ID, PID: pn.PID, StartTime: pn.StartTime}
			alive, err := m.cfg.Engine.Adopt(ctx, k, c.dir(), c.Log)
			if err != nil || alive {
				return err
			}
			k.Exit = engine.Exit{Unknown: true, Code: engine.UnknownExit}
		}
	}
	m.exited(c, k.Exit)
	err := errors.Join(c.setState(ctrExited), m.releaseProcess(ctx, c))
	close(c.ended)
	m.cfg.Engine.Ack(c.ID)
	m.bury(p)
	return err
}

// restoreTomb brings back the pods of an earlier boot: not ready, their containers exited. Their writable layers
// are deleted, their network given back; what fails is tried again when they are removed.
func (m *Manager) restoreTomb(ctx context.Context) {
	ids, err := m.tomb.List()
	if err != nil {
		m.log.Error("list tomb", "err", err)
		return
	}
	for _, id := range ids {
		if m.pods[id] != nil {
			continue
		}
		var e tombEntry
		if err := m.tomb.Read(id, &e); err != nil {
			m.log.Error("read tomb", "pod", id, "err", err)
			if path, err := m.tomb.Path(id); err == nil {
				_, _ = m.tomb.Quarantine(path)
			}
			continue
		}
		if e.BootID == m.cfg.Facts.BootID && !m.cleared(id) {
			continue
		}
		if err := m.rise(ctx, id, e); err != nil {
			m.log.Error("restore pod of an earlier boot", "pod", id, "err", err)
		}
	}
}

// cleared: the pod's directory under /run is gone, as after a boot.
func (m *Manager) cleared(id string) bool {
	_, err := os.Lstat(podDir(m.cfg.RunDir, id))
	return errors.Is(err, os.ErrNotExist)
}

func (m *Manager) rise(ctx context.Context, id string, e tombEntry) error {
	p, err := e.Pod.pod(id, m.cfg.RunDir)
	if err != nil {
		return err
	}
	p.state = podStopped
	for cid, rec := range e.Containers {
		was := rec.State
		rec.State = ctrExited
		c, err := rec.container(cid, p)
		if err != nil {
			return err
		}
		if was != ctrExited {
			c.reason, c.exitCode = reasonUnknown, engine.UnknownExit
			c.message = "the node restarted while it was " + string(was)
			if c.finished.IsZero() {
				c.finished = p.Created
			}
		}
		p.containers[cid], m.ctrs[cid] = c, c
	}
	m.pods[id] = p
	if err := m.releaseOld(ctx, p); err != nil {
		m.log.Warn("give back the network of a pod of an earlier boot; its removal tries again", "pod", id, "err", err)
	}
	m.bury(p)
	return nil
}

// sweepLayers deletes writable layers that no container has: those of an earlier boot.
func (m *Manager) sweepLayers() {
	dir := filepath.Join(m.cfg.StateDir, "containers")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if c := m.ctrs[e.Name()]; c != nil && c.pod.journal != nil {
			continue
		}
		o := plan.Object{Kind: plan.Dir, Name: filepath.Join(dir, e.Name())}
		if err := m.cfg.Engine.Release(context.Background(), o); err != nil {
			m.log.Warn("delete writable layer", "ctr", e.Name(), "err", err)
		}
	}
}
