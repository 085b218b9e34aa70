//go:build cgo

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/engine"
)

// criuFlags are those that checkpoint and restore have alike.
type criuFlags struct {
	engine.CriuOptions
	emptyNS many
}

func (c *criuFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&c.ImagePath, "image-path", "", "directory of criu's images (default: ./checkpoint)")
	fs.StringVar(&c.WorkPath, "work-path", "", "directory of criu's log and other files (default: that of the images)")
	fs.BoolVar(&c.TCPEstablished, "tcp-established", false, "take along TCP connections that are established")
	fs.BoolVar(&c.ExtUnixSk, "ext-unix-sk", false, "allow UNIX sockets to the outside")
	fs.BoolVar(&c.ShellJob, "shell-job", false, "allow a session whose leader is outside")
	fs.BoolVar(&c.FileLocks, "file-locks", false, "take along file locks")
	fs.StringVar(&c.CgroupsMode, "manage-cgroups-mode", "", "how criu treats cgroups: soft, full, strict or ignore")
	fs.Var(&c.emptyNS, "empty-ns", "make a namespace of this type and leave it empty; only network, which is always so; may be repeated")
	fs.BoolVar(&c.AutoDedup, "auto-dedup", false, "free pages of parent images that newer ones have")
	fs.BoolVar(&c.LazyPages, "lazy-pages", false, "leave memory pages to be fetched when they are needed")
}

// check finishes what was given.
func (c *criuFlags) check() (err error) {
	for _, ns := range c.emptyNS {
		if ns != string(specs.NetworkNamespace) {
			return fmt.Errorf("--empty-ns: namespace %q is not supported", ns)
		}
	}
	if c.ImagePath == "" {
		c.ImagePath = "checkpoint"
	}
	if c.ImagePath, err = filepath.Abs(c.ImagePath); err != nil {
		return err
	}
	c.WorkPath, err = absolute(c.WorkPath)
	return err
}

// checkpoint saves a container with criu.
func checkpoint(ctx context.Context, a *app, args []string) error {
	var c criuFlags
	var pageServer string
	fs := newFlags("checkpoint")
	c.define(fs)
	fs.StringVar(&c.ParentPath, "parent-path", "", "directory of the images of an earlier --pre-dump, relative to that of the images")
	fs.BoolVar(&c.LeaveRunning, "leave-running", false, "let the container run on")
	fs.BoolVar(&c.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out TCP connections that are not established yet")
	fs.BoolVar(&c.LinkRemap, "link-remap", false, "link files that were unlinked back where that is possible")
	fs.IntVar(&c.StatusFD, "status-fd", -1, "descriptor that gets a zero byte when --lazy-pages are ready")
	fs.StringVar(&pageServer, "page-server", "", "ADDRESS:PORT of a criu page server that gets the memory")
	fs.BoolVar(&c.PreDump, "pre-dump", false, "save memory only, and let the container run on")
	rest, err := parse(fs, args, 1, 1)
	if err == nil {
		err = c.check()
	}
	if err == nil {
		err = c.setPageServer(pageServer)
	}
	if err == nil {
		err = c.checkParent()
	}
	if err != nil {
		return err
	}
	a.warnRootless("checkpoint")
	e := a.engine()
	text, err := e.Config(rest[0])
	if err != nil {
		return err
	}
	spec := &specs.Spec{}
	if err := decode("config.json of "+rest[0], text, spec); err != nil {
		return err
	}
	return e.Checkpoint(ctx, rest[0], spec, c.CriuOptions)
}

func (c *criuFlags) setPageServer(s string) error {
	if s == "" {
		return nil
	}
	address, port, err := net.SplitHostPort(s)
	if err != nil || address == "" || port == "" {
		return errors.New("Use --page-server ADDRESS:PORT to specify page server") //nolint:staticcheck // ST1005: runc's words
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("--page-server: Invalid port number %q", port)
	}
	c.PageServer, c.PageServerPort = address, int32(n)
	return nil
}

// checkParent wants the parent's images to be there.
func (c *criuFlags) checkParent() error {
	if c.ParentPath == "" {
		return nil
	}
	if filepath.IsAbs(c.ParentPath) {
		return errors.New("--parent-path must be relative")
	}
	parent := filepath.Join(c.ImagePath, c.ParentPath)
	info, err := os.Stat(parent)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: %w", parent, unix.ENOTDIR)
	}
	if err != nil {
		return fmt.Errorf("invalid --parent-path: %w", err)
	}
	return nil
}

func (a *app) warnRootless(command string) {
	if os.Geteuid() != 0 || inUserNS() {
		a.log.warn(command + " takes privileges that rootless callers lack")
	}
}

// restore makes a container of a checkpoint.
func restore(ctx context.Context, a *app, args []string) error {
	var c criuFlags
	m := making{}
	fs := newFlags("restore")
	c.define(fs)
	c.StatusFD = -1
	fs.StringVar(&c.LSMProfile, "lsm-profile", "", "TYPE:NAME of the security profile in the place of the images'")
	fs.StringVar(&c.LSMMountContext, "lsm-mount-context", "", "mount context in the place of the images'")
	both(fs.StringVar, &m.bundle, "bundle", "b", "directory of config.json and of what it names (default: the current one)")
	fs.StringVar(&m.consoleSocket, "console-socket", "", "UNIX socket that gets the master of the process's terminal")
	fs.StringVar(&m.pidFile, "pid-file", "", "file that gets the process id of the container's init")
	both(fs.BoolVar, &m.detach, "detach", "d", "return when the container runs")
	fs.BoolVar(&m.noSubreaper, "no-subreaper", false, "do not become the parent of what the container's init leaves behind")
	fs.BoolVar(&m.noPivot, "no-pivot", false, "(criu decides how it enters the root)")
	rest, err := parse(fs, args, 1, 1)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return err
	}
	a.warnRootless("restore")
	e, req, err := a.restoreRequest(&m, rest[0])
	if err != nil {
		return err
	}
	req.CriuOptions = c.CriuOptions
	if !m.detach && !m.noSubreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become subreaper: %w", err)
		}
	}
	launch := func(ctx context.Context, console func(*os.File) error) (*engine.Process, error) {
		req.Console = console
		return e.Restore(ctx, req)
	}
	return m.stay(ctx, e, "restore", req.ID, launch, req.Spec.Process.Terminal)
}

// restoreRequest reads the bundle. The compiler checks it as for a start.
func (a *app) restoreRequest(m *making, id string) (*engine.Command, engine.RestoreRequest, error) {
	e, made, err := a.prepare(m, id, false)
	if err != nil {
		return nil, engine.RestoreRequest{}, err
	}
	req := engine.RestoreRequest{ID: id, Bundle: made.Bundle, Spec: made.Spec, Config: made.Config, Prepare: made.Prepare}
	if req.ConsoleSocket, err = absolute(m.consoleSocket); err != nil {
		return nil, req, err
	}
	o, err := a.options(id, made.Bundle)
	if err != nil {
		return nil, req, err
	}
	a.chooseGroup(req.Spec, &o)
	req.Cgroup, err = compile.CgroupPath(req.Spec, o)
	return e, req, err
}
