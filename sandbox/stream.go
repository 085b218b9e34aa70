package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/engine"
)

// WindowSize is a terminal's size in characters.
type WindowSize = engine.WindowSize

// Streams are a client's ends of an exec or an attachment. What is nil it does not want.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Sizes          func(yield func(WindowSize) bool) // of its window, as they come
}

// MayExec says whether a command could be run now, before a client is told where to come.
func (m *Manager) MayExec(id string, cmd []string) error {
	if err := (oci.ExecInput{Cmd: cmd}).Check(); err != nil {
		return invalid(err)
	}
	_, err := m.mayRun(id)
	return err
}

// MayAttach says whether a container could be attached to now.
func (m *Manager) MayAttach(id string) error {
	_, err := m.runningContainer("attach to", id)
	return err
}

// MayForward says whether a pod's ports could be connected to now.
func (m *Manager) MayForward(id string) error {
	_, err := m.readyPod(id)
	return err
}

// Exec runs a command in a running container, with a terminal or not, and gives its exit code. When the context ends
// before, the command is killed with all it started.
func (m *Manager) Exec(ctx context.Context, id string, cmd []string, tty bool, s Streams) (int, error) {
	c, err := m.mayRun(id)
	if err != nil {
		return 0, err
	}
	o := m.options(c.pod, newID())
	o.Container, o.KillGroup = c.ID, true
	pl, err := compile.Exec(c.spec, oci.Exec(c.spec, oci.ExecInput{Cmd: cmd, TTY: tty}), o)
	if err != nil {
		return 0, fmt.Errorf("compile exec: %w", err)
	}
	x, err := m.cfg.Engine.Exec(ctx, engine.ExecRequest{
		ID: o.ID, Container: c.ID, Plan: pl, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Terminal: tty, Sizes: s.Sizes,
	})
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", short(c.ID), err)
	}
	return x.Code, nil
}

// Attach connects a client to a running container's streams until that ends, the client goes, or its input does.
func (m *Manager) Attach(ctx context.Context, id string, s Streams) error {
	c, err := m.runningContainer("attach to", id)
	if err != nil {
		return err
	}
	err = m.cfg.Engine.Attach(ctx, engine.AttachRequest{
		ID: c.ID, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Sizes: s.Sizes, HasStdin: c.Config.GetStdin(), Once: c.Config.GetStdinOnce(),
	})
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", short(c.ID), err)
	}
	return nil
}

func (m *Manager) runningContainer(what, id string) (*Container, error) {
	c, err := m.container(id)
	if err != nil {
		return nil, err
	}
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	if c.state != ctrRunning {
		return nil, fmt.Errorf("%s container %s: it is %s: %w", what, c.ID, c.state, ErrState)
	}
	return c, nil
}

// mayRun says whether a command could run in the container: in a frozen one it would stand still where it joins the
// cgroup, and on v1 not even die.
func (m *Manager) mayRun(id string) (*Container, error) {
	c, err := m.runningContainer("exec in", id)
	if err != nil {
		return nil, err
	}
	if frozen, err := m.cfg.Cgroups.Frozen(c.cgroup()); err == nil && frozen {
		return nil, fmt.Errorf("exec in container %s: its cgroup is frozen: %w", c.ID, ErrState)
	}
	return c, nil
}

func (m *Manager) readyPod(id string) (*Pod, error) {
	p, err := m.pod(id)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != podReady {
		return nil, fmt.Errorf("forward port of pod sandbox %s: it is not ready: %w", p.ID, ErrState)
	}
	return p, nil
}

// Forward connects a client's stream to a port of a pod, until the pod's end has closed or the context ends.
func (m *Manager) Forward(ctx context.Context, id string, port uint16, client io.ReadWriteCloser) error {
	p, err := m.readyPod(id)
	if err != nil {
		return err
	}
	path := m.netnsPath(p)
	if p.hostNetwork() {
		path = ""
	}
	conn, err := netns.Dial(ctx, path, port)
	if err != nil {
		return fmt.Errorf("forward port %d of pod sandbox %s: %w", port, short(p.ID), err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	return pass(conn, client)
}

// forwardGrace is how long a client may go on sending to a pod that has finished its answer.
const forwardGrace = time.Second

// pass copies both ways. An end of file is passed on; the pod's ends it all, after a grace.
func pass(conn net.Conn, client io.ReadWriteCloser) error {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, err := io.Copy(conn, client)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite()
		}
	}()
	_, err := io.Copy(client, conn)
	_ = client.Close()
	select {
	case <-sent:
	case <-time.After(forwardGrace):
		if r, ok := client.(interface{ Reset() error }); ok {
			_ = r.Reset()
		}
	}
	if errors.Is(err, net.ErrClosed) {
		return nil // the client has gone
	}
	return err
}
