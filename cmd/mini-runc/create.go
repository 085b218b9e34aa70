package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// making are the options of create and run.
type making struct {
	bundle        string
	consoleSocket string
	pidfdSocket   string
	pidFile       string
	noPivot       bool
	noNewKeyring  bool
	preserveFDs   uint
	detach        bool
	keep          bool
	noSubreaper   bool

	notify *notify // of the call's own supervisor; nil for none
}

func (m *making) define(fs *flag.FlagSet) {
	both(fs.StringVar, &m.bundle, "bundle", "b", "directory of config.json and of what it names (default: the current one)")
	fs.StringVar(&m.consoleSocket, "console-socket", "", "UNIX socket that gets the master of the process's terminal")
	fs.StringVar(&m.pidfdSocket, "pidfd-socket", "", "UNIX socket that gets a pidfd of the container's init")
	fs.StringVar(&m.pidFile, "pid-file", "", "file that gets the process id of the container's init")
	fs.BoolVar(&m.noPivot, "no-pivot", false, "move the root over / and chroot into it, for hosts that run from a ramdisk")
	fs.BoolVar(&m.noNewKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	fs.UintVar(&m.preserveFDs, "preserve-fds", 0, "hand N more descriptors to the program, from 3 on, after those of $LISTEN_FDS")
}

// request compiles the bundle.
func (m *making) request(a *app, id, gate string) (engine.CommandRequest, error) {
	b, err := openBundle(m.bundle)
	if err != nil {
		return engine.CommandRequest{}, err
	}
	req := engine.CommandRequest{ID: id, Bundle: b.dir, Spec: b.spec}
	if b.spec.Process == nil && gate != "" { // create needs none
		b.spec.Process, req.NoProgram = &specs.Process{Cwd: "/", Args: []string{"./none"}}, true // relative: nobody looks for it
	}
	if p := b.spec.Process; p != nil {
		if err := m.inherit(p); err != nil {
			return req, err
		}
		setHome(p, passwdOf(b.spec, b.dir))
		if m.notify = newNotify(a.root, id); m.notify != nil {
			m.notify.describe(b.spec)
			req.Prepare = func(string) error { return m.notify.prepare(gate == "") }
		}
		if err := checkConsole(p.Terminal, m.detach, m.consoleSocket); err != nil {
			return req, err
		}
		if p.Terminal && !m.detach {
			setConsoleSize(p)
		}
	}
	req.PreserveFDs = int(m.preserveFDs)
	req.Plan, err = m.plan(a, b, id, gate)
	req.Config = b.text
	return req, err
}

func (m *making) plan(a *app, b *bundle, id, gate string) (*plan.Plan, error) {
	o, err := a.options(id, b.dir)
	if err != nil {
		return nil, err
	}
	o.Gate, o.NoPivot, o.NoNewKeyring, o.PreserveFDs = gate, m.noPivot, m.noNewKeyring, m.preserveFDs
	if o.ConsoleSocket, err = absolute(m.consoleSocket); err != nil {
		return nil, err
	}
	allowDefaults(b.spec)
	a.chooseGroup(b.spec, &o)
	if a.systemd {
		if err := b.nameScope(id); err != nil {
			return nil, fmt.Errorf("%s: linux.cgroupsPath: %w", filepath.Join(b.dir, "config.json"), err)
		}
	}
	p, err := compile.Container(b.spec, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(b.dir, "config.json"), err)
	}
	return p, nil
}

// checkConsole wants somebody to hold the terminal's master: us in the foreground, else who listens at the socket.
func checkConsole(terminal, detach bool, socket string) error {
	switch {
	case terminal && detach && socket == "":
		return errors.New("process.terminal: cannot allocate tty if the call will detach without setting console socket: give --console-socket")
	case socket != "" && (!terminal || !detach):
		return errors.New("--console-socket: cannot use console socket if the call will not detach or allocate tty: it is for a detached process with a terminal")
	}
	return nil
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

func create(ctx context.Context, a *app, args []string) error {
	m := making{detach: true}
	fs := newFlags("create")
	m.define(fs)
	rest, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	e, req, err := a.prepare(&m, rest[0], true)
	if err != nil {
		return err
	}
	at := attachment{detach: true, pidFile: m.pidFile, pidfdSocket: m.pidfdSocket, kind: pidfdInit}
	if err := at.connect(); err != nil {
		return err
	}
	defer at.close()
	giveStdio(req.Spec, req.Spec.Process, true)
	ctx = untilSignal(ctx)
	p, err := e.Create(ctx, req)
	if err != nil {
		return fmt.Errorf("create container %s: %w", req.ID, err)
	}
	if err := at.announce(p.PID); err != nil {
		return errors.Join(err, e.Delete(context.WithoutCancel(ctx), req.ID, true))
	}
	return nil
}

// prepare is everything before the first change on the machine.
func (a *app) prepare(m *making, id string, gated bool) (*engine.Command, engine.CommandRequest, error) {
	if err := engine.CheckID(id); err != nil {
		return nil, engine.CommandRequest{}, err
	}
	if a.systemd {
		if err := cgroup.FindSystemd(); err != nil {
			return nil, engine.CommandRequest{}, fmt.Errorf("--systemd-cgroup: %w", err)
		}
	}
	e := a.engine()
	gate := ""
	if gated {
		gate = e.Gate(id)
	}
	req, err := m.request(a, id, gate)
	return e, req, err
}

func start(ctx context.Context, a *app, args []string) error {
	rest, err := parse(newFlags("start"), args, 1, 1)
	if err != nil {
		return err
	}
	e := a.engine()
	ctx = untilSignal(ctx)
	n := newNotify(a.root, rest[0])
	if n == nil {
		return e.Start(ctx, rest[0])
	}
	if err := n.listen(); err != nil {
		return fmt.Errorf("start container %s: %w", rest[0], err)
	}
	defer n.close()
	if err := e.Start(ctx, rest[0]); err != nil {
		return err
	}
	s, err := e.State(rest[0])
	if err != nil || s.PID == 0 {
		return err
	}
	return n.forward(ctx, s.PID, s.PID)
}

func run(ctx context.Context, a *app, args []string) error {
	var m making
	fs := newFlags("run")
	m.define(fs)
	both(fs.BoolVar, &m.detach, "detach", "d", "return when the program runs")
	fs.BoolVar(&m.keep, "keep", false, "do not delete the container when its program has ended")
	fs.BoolVar(&m.noSubreaper, "no-subreaper", false, "do not become the parent of what the container's init leaves behind")
	rest, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	e, req, err := a.prepare(&m, rest[0], false)
	if err != nil {
		return err
	}
	giveStdio(req.Spec, req.Spec.Process, m.detach)
	if !m.detach && !m.noSubreaper {
		// What the container's init leaves behind, without a PID namespace, becomes ours.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become subreaper: %w", err)
		}
	}
	launch := func(ctx context.Context, console func(*os.File) error) (*engine.Process, error) {
		req.Console = console
		return e.Run(ctx, req)
	}
	return m.stay(ctx, e, "run", req.ID, launch, req.Spec.Process.Terminal)
}

// stay is the rest of run and restore: it starts the container and, unless detached, stays until it has ended.
func (m *making) stay(ctx context.Context, e *engine.Command, verb, id string, launch launcher, terminal bool) error {
	made := false // an id that belongs to another container must not be deleted
	remember := func(ctx context.Context, console func(*os.File) error) (*engine.Process, error) {
		p, err := launch(ctx, console)
		made = err == nil
		return p, err
	}
	code, err := foreground(ctx, remember, attachment{
		detach: m.detach, terminal: terminal, pidFile: m.pidFile, pidfdSocket: m.pidfdSocket, kind: pidfdInit, notify: m.notify,
	})
	if err != nil {
		err = fmt.Errorf("%s container %s: %w", verb, id, err)
		if made {
			err = errors.Join(err, e.Delete(ctx, id, true))
		}
		return err
	}
	if m.detach {
		return nil
	}
	if !m.keep {
		err = e.Delete(ctx, id, true)
	}
	if err == nil && code == 0 {
		return nil
	}
	return &exitError{code, err}
}

// writePID writes a pid file by rename, so that whoever waits for it never sees half of it.
func writePID(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("--pid-file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("--pid-file: %w", err)
	}
	return nil
}
