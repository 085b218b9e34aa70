package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/engine"
)

// execFailed is runc's exit status of an exec that did not start.
const execFailed = 255

// execOptions are the options of exec.
type execOptions struct {
	process       string
	cwd           string
	env           many
	tty           bool
	user          string
	groups        many
	detach        bool
	pidfdSocket   string
	pidFile       string
	caps          many
	noNewPrivs    bool
	privsSet      bool // noNewPrivs counts
	consoleSocket string
	preserveFDs   uint
	label         string
	apparmor      string
	ignorePaused  bool
	cgroups       many
}

func (x *execOptions) define(fs *flag.FlagSet) {
	both(fs.StringVar, &x.process, "process", "p", "JSON file that describes the process, in the place of the options and the command")
	fs.StringVar(&x.cwd, "cwd", "", "working directory in the container")
	bothMany(fs, &x.env, "env", "e", "NAME=value to add to the environment; may be repeated")
	both(fs.BoolVar, &x.tty, "tty", "t", "give the process a terminal")
	both(fs.StringVar, &x.user, "user", "u", "UID[:GID]")
	bothMany(fs, &x.groups, "additional-gids", "g", "a further group id; may be repeated")
	both(fs.BoolVar, &x.detach, "detach", "d", "return when the program runs")
	fs.StringVar(&x.pidfdSocket, "pidfd-socket", "", "UNIX socket that gets a pidfd of the process")
	fs.StringVar(&x.pidFile, "pid-file", "", "file that gets the process id")
	bothMany(fs, &x.caps, "cap", "c", "a further capability; may be repeated")
	fs.BoolVar(&x.noNewPrivs, "no-new-privs", false, "set no_new_privs; =false takes the container's away")
	fs.StringVar(&x.consoleSocket, "console-socket", "", "UNIX socket that gets the master of the process's terminal")
	fs.StringVar(&x.label, "process-label", "", "SELinux label of the process")
	fs.StringVar(&x.apparmor, "apparmor", "", "AppArmor profile of the process")
	fs.Var(&x.cgroups, "cgroup", "[CONTROLLER[,CONTROLLER...]:]GROUP, an existing group below the container's to run in; may be repeated")
	fs.BoolVar(&x.ignorePaused, "ignore-paused", false, "start the process in a paused container too; it stands still until the resume")
	fs.UintVar(&x.preserveFDs, "preserve-fds", 0, "hand N more descriptors to the program, from 3 on")
}

func execute(ctx context.Context, a *app, args []string) error {
	var x execOptions
	fs := newFlags("exec")
	x.define(fs)
	rest, err := parse(fs, args, 1, -1)
	if err != nil {
		return err
	}
	x.privsSet = given(fs, "no-new-privs")
	code, err := x.run(ctx, a, rest[0], rest[1:])
	if err != nil {
		return &exitError{execFailed, err}
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}

func (x *execOptions) run(ctx context.Context, a *app, id string, args []string) (int, error) {
	e := a.engine()
	text, err := e.Config(id)
	if err != nil {
		return 0, err
	}
	spec := &specs.Spec{}
	if err := decodeSpec("config.json of "+id, text, spec); err != nil {
		return 0, err
	}
	proc, err := x.describe(spec, args)
	if err != nil {
		return 0, err
	}
	if err := checkConsole(proc.Terminal, x.detach, x.consoleSocket); err != nil {
		return 0, err
	}
	o, err := a.options(id, "")
	if err != nil {
		return 0, err
	}
	o.PreserveFDs = x.preserveFDs
	setHome(proc, func() (*os.File, error) {
		pid, err := e.Init(id)
		if err != nil {
			return nil, err
		}
		return openIn("/proc/"+strconv.Itoa(pid)+"/root", "etc/passwd")
	})
	if err := groupOf(e, id, spec, &o); err != nil {
		return 0, err
	}
	if err := checkInherited(int(x.preserveFDs)); err != nil {
		return 0, err
	}
	if o.SubCgroups, err = subCgroups(x.cgroups); err != nil {
		return 0, err
	}
	if o.ConsoleSocket, err = absolute(x.consoleSocket); err != nil {
		return 0, err
	}
	if proc.Terminal && !x.detach {
		setConsoleSize(proc)
	}
	p, err := compile.Exec(spec, proc, o)
	if err != nil {
		return 0, err
	}
	giveStdio(spec, proc, x.detach)
	launch := func(ctx context.Context, console func(*os.File) error) (*engine.Process, error) {
		return e.Exec(ctx, engine.CommandExec{Container: id, Plan: p, Console: console, PreserveFDs: int(x.preserveFDs), IgnorePaused: x.ignorePaused})
	}
	return foreground(ctx, launch, attachment{
		detach: x.detach, terminal: proc.Terminal, pidFile: x.pidFile, pidfdSocket: x.pidfdSocket, kind: pidfdExec,
	})
}

// describe gives the process: that of the file, or the container's own with the options' changes.
func (x *execOptions) describe(spec *specs.Spec, args []string) (*specs.Process, error) {
	if x.process != "" {
		text, err := os.ReadFile(x.process)
		if err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		p := &specs.Process{}
		if err := decode(x.process, text, p); err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, errors.New("exec args cannot be empty: give a command, or a --process file")
	}
	if spec.Process == nil {
		return nil, fmt.Errorf("config.json: process: is missing")
	}
	p := *spec.Process
	p.Args, p.Terminal, p.ConsoleSize = args, x.tty, nil
	p.Env = append(append([]string(nil), p.Env...), x.env...)
	if x.cwd != "" {
		p.Cwd = x.cwd
	}
	if x.privsSet {
		p.NoNewPrivileges = x.noNewPrivs
	}
	if x.label != "" {
		p.SelinuxLabel = x.label
	}
	if x.apparmor != "" {
		p.ApparmorProfile = x.apparmor
	}
	x.addCaps(&p)
	return &p, x.setUser(&p)
}

// subCgroups reads [CONTROLLER[,CONTROLLER...]:]CGROUP, the latter below the container's own.
func subCgroups(list []string) (map[string]string, error) {
	groups := map[string]string{}
	for _, s := range list {
		controllers, group, named := strings.Cut(s, ":")
		if !named {
			controllers, group = "", s
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if named && c == "" {
				return nil, fmt.Errorf("--cgroup: %q has no controller before the colon", s)
			}
			if _, twice := groups[c]; twice {
				return nil, fmt.Errorf("--cgroup: %q is a second one for the same controller", s)
			}
			groups[c] = group
		}
	}
	return groups, nil
}

func (x *execOptions) addCaps(p *specs.Process) {
	if len(x.caps) == 0 {
		return
	}
	c := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		c = *p.Capabilities
	}
	sets := []*[]string{&c.Bounding, &c.Effective, &c.Permitted}
	if c.Inheritable != nil { // without, the ambient set could not have them; as in runc
		sets = append(sets, &c.Ambient)
	}
	for _, set := range sets {
		*set = append(append([]string(nil), *set...), x.caps...)
	}
	p.Capabilities = &c
}

// setUser reads UID[:GID]; names would have to be looked up in files of the container.
func (x *execOptions) setUser(p *specs.Process) error {
	if x.user != "" {
		uid, gid, both := strings.Cut(x.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("--user: bad uid: %q is not UID[:GID]", x.user)
		}
		p.User.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return fmt.Errorf("--user: bad gid: %q is not UID[:GID]", x.user)
			}
			p.User.GID = uint32(n)
		}
	}
	groups := append([]uint32(nil), p.User.AdditionalGids...)
	for _, g := range x.groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return fmt.Errorf("--additional-gids: %q is not a group id", g)
		}
		groups = append(groups, uint32(n))
	}
	p.User.AdditionalGids = groups
	return nil
}
