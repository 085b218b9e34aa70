package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/cri"
	"github.com/cri-mini/cri-mini/image"
	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/seccomp"
	"github.com/cri-mini/cri-mini/sandbox"
)

// serve runs the daemon until it is told to stop. Pods run on without it.
func serve(ctx context.Context, args []string) error {
	c, rest, err := parse("serve", args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("serve: unexpected argument %q", rest[0])
	}
	log, err := newLogger(c)
	if err != nil {
		return err
	}
	// A node has many runtimes' worth of pods and little memory: collect early, at the cost of some CPU.
	debug.SetGCPercent(50)
	unlock, err := own(c)
	if err != nil {
		return err
	}
	defer unlock()
	d, err := start(ctx, c, log)
	if err != nil {
		return err
	}
	return d.serve(ctx)
}

// daemon is everything that runs.
type daemon struct {
	c       config
	log     *slog.Logger
	facts   host.Facts
	engine  *engine.Engine
	network *netns.Network
	images  *image.Store
	pods    *sandbox.Manager
	mounted bool // we mounted the run directory
}

func start(ctx context.Context, c config, log *slog.Logger) (*daemon, error) {
	d := &daemon{c: c, log: log}
	var err error
	if d.facts, err = host.Probe(); err != nil {
		return nil, err
	}
	d.facts.SeccompLib = seccomp.LibraryVersion()
	if d.mounted, err = mountRunDir(c.RunDir); err != nil {
		return nil, err
	}
	if d.mounted {
		log.Info("run_dir is a tmpfs of our own, 64 MiB at most: the file system below is none", "obj", c.RunDir)
	}
	cgroups, err := cgroup.New(cgroup.Config{Layout: cgroup.Layout(d.facts.Cgroup)})
	if err != nil {
		return nil, err
	}
	if d.images, err = image.Open(ctx, image.Config{Root: filepath.Join(c.StateDir, "images"), Registry: registry.Config{ConfigDir: c.Registry.ConfigDir, StallTimeout: c.Registry.StallTimeout}, Logger: log}); err != nil {
		return nil, err
	}
	if d.network, err = netns.New(ctx, netns.Config{
		Mode: c.Network.Mode, ConfDir: c.Network.ConfDir, BinDirs: c.Network.BinDirs, StateDir: filepath.Join(c.StateDir, "network"), RunDir: filepath.Join(c.RunDir, "network"), PodCIDR: c.Network.PodCIDR, Bridge: c.Network.Bridge, MTU: c.Network.MTU, Logger: log,
	}); err != nil {
		return nil, err
	}
	helper, err := c.initPath()
	if err != nil {
		return nil, err
	}
	var known []engine.Known
	if d.engine, known, err = engine.Open(engine.Config{
		RunDir: c.RunDir, Facts: d.facts, Cgroups: cgroups, Helper: helper, PodsPerMonitor: c.Runtime.PodsPerMonitor, Log: log,
	}); err != nil {
		return nil, err
	}
	d.pods, err = sandbox.Open(ctx, sandbox.Config{
		RunDir: c.RunDir, StateDir: c.StateDir, Facts: d.facts, Engine: d.engine, Known: known, Cgroups: cgroups, Network: d.network,
		Images: lender{d.images}, Seccomp: compileSeccomp, Handlers: c.Runtime.Handlers, Log: log,
	})
	if err != nil {
		return nil, err
	}
	if err := d.images.Settle(); err != nil {
		log.Warn("settle image store", "err", err)
	}
	if err := d.network.GC(ctx, d.pods.Attachments()); err != nil {
		log.Warn("give back what no pod has of the network", "err", err)
	}
	return d, nil
}

func (d *daemon) serve(ctx context.Context) error {
	listener, err := listen(d.c.Socket)
	if err != nil {
		return err
	}
	info, err := d.info()
	if err != nil {
		return err
	}
	streaming, err := d.stream()
	if err != nil {
		return err
	}
	s := &cri.Server{
		Pods: d.pods, Images: d.images, Network: nodeNetwork{d.network}, Streaming: streaming, Handlers: d.handlers(), Features: d.features(), Release: version, Info: info,
		StateDir: d.c.StateDir, Log: d.log,
	}
	g := s.Register()
	go func() {
		<-ctx.Done()
		streaming.Close()
		d.pods.EndEvents()
		stopped := make(chan struct{})
		go func() { g.GracefulStop(); close(stopped) }()
		select {
		case <-stopped:
		case <-time.After(5 * time.Second):
			g.Stop()
		}
	}()
	d.log.Info("serving", "obj", d.c.Socket, "pods", d.pods.Pods(), "kernel", fmt.Sprintf("%d.%d", d.facts.Kernel.Major, d.facts.Kernel.Minor), "cgroups", d.facts.Cgroup.Mode, "init", d.engine.Sealed())
	err = g.Serve(listener)
	return errors.Join(err, d.close())
}

// close lets go of everything. With no pod left nothing of the daemon stays on the machine but its state directory.
func (d *daemon) close() error {
	empty := d.pods.Pods() == 0
	var errs []error
	if empty {
		errs = append(errs, d.engine.Dissolve())
	}
	d.engine.Close()
	if empty {
		errs = append(errs, d.network.Remove())
	}
	d.network.Close()
	errs = append(errs, d.images.Close())
	if empty && d.mounted {
		errs = append(errs, unix.Unmount(d.c.RunDir, unix.MNT_DETACH))
	}
	return errors.Join(errs...)
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

// own takes the lock of the state directory: two daemons on one would undo each other's work.
func own(c config) (func(), error) {
	if err := os.MkdirAll(c.StateDir, 0o711); err != nil {
		return nil, fmt.Errorf("make state_dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(c.StateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("state_dir %s: another cri-mini uses it: %w", c.StateDir, err)
	}
	return func() { _ = f.Close() }, nil
}

// runDirSize bounds what journals and FIFOs may take.
const runDirSize = "size=64m,mode=711"

// mountRunDir makes the run directory and, where it is on no tmpfs, mounts one.
func mountRunDir(dir string) (bool, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return false, fmt.Errorf("make run_dir: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("stat run_dir: %w", err)
	}
	if st.Type == unix.TMPFS_MAGIC {
		return isMountPoint(dir), nil
	}
	if err := unix.Mount("cri-mini", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, runDirSize); err != nil {
		return false, fmt.Errorf("mount run_dir %s: %w", dir, err)
	}
	return true, nil
}

// isMountPoint: a daemon before us mounted it.
func isMountPoint(dir string) bool {
	var a, b unix.Stat_t
	return unix.Stat(dir, &a) == nil && unix.Stat(filepath.Dir(dir), &b) == nil && a.Dev != b.Dev
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make socket directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // the lock says that nobody serves it
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

func newLogger(c config) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return nil, fmt.Errorf("configuration: log.level: %w", err)
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
}
