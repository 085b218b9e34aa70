package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/cri"
	"github.com/cri-mini/cri-mini/image"
	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/seccomp"
	"github.com/cri-mini/cri-mini/sandbox"
)

// serve runs the daemon until it is told to stop. Pods run on without it.
func serve(ctx context.Context, args []string) error {
	c, _, err := parse("serve", args, 0)
	if err != nil {
		return err
	}
	log := newLogger(c)
	// A node has many runtimes' worth of pods and little memory: collect early, at the cost of some CPU.
	debug.SetGCPercent(50)
	state, err := hold("state_dir", c.StateDir)
	if err != nil {
		return err
	}
	defer state.release()
	run, err := openRunDir(c.RunDir, log)
	if err != nil {
		return err
	}
	d := &daemon{c: c, log: log}
	if err = removeDead(c.Socket); err == nil { // or another one's pods would be touched
		err = d.start(ctx)
	}
	if err == nil {
		err = d.serve(ctx)
	}
	return errors.Join(err, d.close(), run.close())
}

// daemon is everything that runs. What is not there yet is nil.
type daemon struct {
	c       config
	log     *slog.Logger
	facts   host.Facts
	driver  string // why it is the one that facts have
	engine  *engine.Engine
	network *netns.Network
	images  *image.Store
	pods    *sandbox.Manager
}

func (d *daemon) start(ctx context.Context) error {
	c, log := d.c, d.log
	var err error
	if d.facts, err = host.Probe(); err != nil {
		return err
	}
	d.facts.SeccompLib, d.facts.SeccompAPI = seccomp.LibraryVersion(), seccomp.APILevel()
	if err := seccomp.CheckLibrary(); err != nil { // pods without a profile can run
		log.Warn("containers with a seccomp profile cannot start", "err", err)
	}
	if d.driver, err = chooseDriver(ctx, c, &d.facts); err != nil {
		return err
	}
	cgroups, err := cgroup.New(cgroup.Config{Layout: cgroup.Layout(d.facts.Cgroup)})
	if err != nil {
		return err
	}
	images, err := c.images(log)
	if err != nil {
		return err
	}
	if d.images, err = image.Open(ctx, images); err != nil {
		return err
	}
	network := c.network()
	network.Logger = log
	if d.network, err = netns.New(ctx, network); err != nil {
		return err
	}
	helper, err := c.initPath()
	if err != nil {
		return err
	}
	var known []engine.Known
	if d.engine, known, err = engine.Open(engine.Config{
		RunDir: c.RunDir, Facts: d.facts, Cgroups: cgroups, Helper: helper, PodsPerMonitor: c.Runtime.PodsPerMonitor, Log: log,
	}); err != nil {
		return err
	}
	d.pods, err = sandbox.Open(ctx, sandbox.Config{
		RunDir: c.RunDir, StateDir: c.StateDir, Facts: d.facts, Engine: d.engine, Known: known, Cgroups: cgroups, Network: d.network,
		Images: lender{d.images}, Seccomp: compileSeccomp, Handlers: c.Runtime.Handlers, Log: log,
	})
	if err != nil {
		return err
	}
	if err := d.images.Settle(); err != nil {
		log.Warn("settle image store", "err", err)
	}
	if err := d.network.GC(ctx, d.pods.Attachments()); err != nil {
		log.Warn("give back what no pod has of the network", "err", err)
	}
	return nil
}

func (d *daemon) serve(ctx context.Context) error {
	listener, err := listen(d.c.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	operators, err := d.admin()
	if err != nil {
		return err
	}
	defer func() { _ = operators.Close() }()
	streaming, err := d.stream()
	if err != nil {
		return err
	}
	s := &cri.Server{
		Pods: d.pods, Images: d.images, Network: nodeNetwork{d.network}, Streaming: streaming, Handlers: d.handlers(), Features: d.features(), Release: version, Info: d.info, CgroupDriver: d.cgroupDriver(),
		StateDir: d.c.StateDir, Log: d.log,
	}
	g := s.Register()
	go func() {
		<-ctx.Done()
		streaming.Close()
		_ = operators.Close()
		d.pods.EndEvents()
		stopped := make(chan struct{})
		go func() { g.GracefulStop(); close(stopped) }()
		select {
		case <-stopped:
		case <-time.After(5 * time.Second):
			g.Stop()
		}
	}()
	d.log.Info("serving", "obj", d.c.Socket, "pods", d.pods.Pods(), "kernel", fmt.Sprintf("%d.%d", d.facts.Kernel.Major, d.facts.Kernel.Minor), "cgroups", d.facts.Cgroup.Mode, "driver", fmt.Sprintf("%s (%s)", d.facts.CgroupDriver, d.driver), "init", d.engine.Sealed())
	return g.Serve(listener)
}

// close lets go of everything. With no pod left nothing of the daemon stays on the machine but its state directory.
func (d *daemon) close() error {
	last := d.last()
	var errs []error
	if d.engine != nil {
		d.engine.Close()
		if last {
			errs = append(errs, d.engine.Dissolve())
		}
	}
	if d.network != nil {
		if last {
			errs = append(errs, d.network.Remove())
		}
		d.network.Close()
	}
	if d.images != nil {
		errs = append(errs, d.images.Close())
	}
	return errors.Join(errs...)
}

// last: there is no pod. A start that failed before it read them goes by their directories.
func (d *daemon) last() bool {
	if d.pods != nil {
		return d.pods.Pods() == 0
	}
	entries, err := os.ReadDir(filepath.Join(d.c.RunDir, "pods"))
	return len(entries) == 0 && (err == nil || errors.Is(err, os.ErrNotExist))
}

// lender gives sandbox the images in its words.
type lender struct{ *image.Store }

func (l lender) Resolve(ref string) (sandbox.Image, bool) {
	img, ok := l.Get(ref)
	if !ok {
		return sandbox.Image{}, false
	}
	out := sandbox.Image{ID: img.ID, Ref: img.ID, Config: &img.Config, Passwd: img.Passwd, Group: img.Group}
	if len(img.Digests) > 0 {
		out.Ref = img.Digests[0]
	}
	return out, true
}

func (l lender) Lend(imageID, containerID, dir string) (lower []string, err error) {
	var r image.Rootfs
	if dir == "" {
		r, err = l.Store.Lend(imageID, containerID)
	} else {
		r, err = l.LendDir(imageID, containerID, dir)
	}
	if errors.Is(err, image.ErrNotDirectory) {
		err = fmt.Errorf("%q %w", dir, sandbox.ErrNotDirectory)
	}
	return r.Lower, err
}

func compileSeccomp(p *specs.LinuxSeccomp) ([]byte, uint64, string, error) {
	f, err := seccomp.Compile(p)
	if err != nil {
		return nil, 0, "", err
	}
	return f.BPF, uint64(f.Flags), fmt.Sprintf("%s/%d-rules", p.DefaultAction, len(p.Syscalls)), nil
}

func newLogger(c config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log.Level)) // checked with the rest of the configuration
	opts := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}
