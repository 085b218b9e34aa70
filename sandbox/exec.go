package sandbox

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cri-mini/cri-mini/oci"
	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/engine"
)

// outputLimit is how much of each stream an ExecSync keeps, in bytes, as containerd and CRI-O do.
const outputLimit = 16 << 20

// limited keeps the first outputLimit bytes and swallows the rest, so that the command never blocks. The buffer is not
// embedded: io.Copy would find its ReadFrom and go past Write.
type limited struct{ kept bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := outputLimit - l.kept.Len(); room > 0 {
		l.kept.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// ExecResult is what an ExecSync gives.
type ExecResult struct {
	Stdout, Stderr []byte
	Code           int
}

// ExecSync runs a command in a running container. Timeout is in seconds, 0 for none; when it has passed, the
// command is killed with all it started, and the error is ErrTimeout.
func (m *Manager) ExecSync(ctx context.Context, id string, cmd []string, timeout int64) (ExecResult, error) {
	in := oci.ExecInput{Cmd: cmd}
	if err := in.Check(); err != nil {
		return ExecResult{}, invalid(err)
	}
	if timeout < 0 {
		return ExecResult{}, fmt.Errorf("timeout: %d is negative: %w", timeout, ErrInvalid)
	}
	c, err := m.mayRun(id)
	if err != nil {
		return ExecResult{}, err
	}
	o := m.options(c.pod, newID())
	o.Container, o.KillGroup = c.ID, timeout > 0
	pl, err := compile.Exec(c.spec, oci.Exec(c.spec, in), o)
	if err != nil {
		return ExecResult{}, fmt.Errorf("compile exec: %w", err)
	}
	var stdout, stderr limited
	limit := engine.Seconds(timeout)
	x, err := m.cfg.Engine.Exec(ctx, engine.ExecRequest{ID: o.ID, Container: c.ID, Plan: pl, Timeout: limit, Stdout: &stdout, Stderr: &stderr})
	if x.TimedOut {
		return ExecResult{}, fmt.Errorf("exec in container %s: no end after %s: %w", c.ID, limit, ErrTimeout)
	}
	if err != nil {
		return ExecResult{}, fmt.Errorf("exec in container %s: %w", short(c.ID), err)
	}
	return ExecResult{Stdout: stdout.kept.Bytes(), Stderr: stderr.kept.Bytes(), Code: x.Code}, nil
}
