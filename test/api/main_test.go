package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

const (
	// imageName is the one image: busybox, and programs that cannot run.
	imageName = "localhost/api:1"
	// stallTimeout is configured for the registry that hangs.
	stallTimeout = 2 * time.Second
	// rpcLimit bounds every call: one that takes longer hangs.
	rpcLimit = 30 * time.Second
)

// parent is the cgroup that the pods are below.
var parent = daemon.Parent("api", "pods")

func TestMain(m *testing.M) {
	code := daemon.Main(m, "../private", writeImage)
	if shared.daemon != nil {
		if err := shared.daemon.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		if err := daemon.RemoveParent(parent); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// writeImage adds to busybox what the tests of a failing exec need.
func writeImage(dir string) error {
	files, err := daemon.Busybox()
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	files = append(files,
		daemon.File{Name: "etc/group", Content: "root:x:0:\nstaff:x:7000:nobody\n"}, daemon.File{Name: "home/file", Content: "x"},
		daemon.File{Name: "bin/alien", Mode: 0o755, Content: alien()},
		daemon.File{Name: "bin/nobang", Mode: 0o755, Content: "echo a script without a first line\n"},
		daemon.File{Name: "bin/noexec", Mode: 0o644, Content: "#!/bin/sh\n"},
		daemon.File{Name: "bin/lost", Mode: 0o755, Content: "#!/bin/no-such-shell\n"},
	)
	return daemon.NewImage(daemon.Layer(files), "").WriteArchive(filepath.Join(dir, "image.tar"), imageName)
}

// shared is the daemon of all tests.
var shared struct {
	once   sync.Once
	daemon *daemon.Daemon
	err    error
	logs   string
	clean  []string // what the machine looks like without pods
}

// node is the daemon in the hands of one test.
type node struct {
	*daemon.Daemon
	t testing.TB
}

// start gives the running daemon, without any pod. After the test all pods are removed, and nothing may be left.
func start(t testing.TB) *node {
	t.Helper()
	bin := daemon.Programs(t)
	shared.once.Do(func() { shared.err = prepare(bin) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	n := &node{shared.daemon, t}
	t.Cleanup(func() {
		n.removeAll()
		n.mustLookLike(shared.clean)
		if t.Failed() {
			t.Logf("the daemon's log ends with:\n%s\nagain: sudo env PATH=$PATH go test -count=1 -run '^%s$' ./test/api", n.LogTail(15), strings.ReplaceAll(t.Name(), "/", "$/^"))
		}
	})
	return n
}

// boundRun mounts a small tmpfs where the machine has a large one on /run, so that a test can fill it. Where there is
// none the daemon mounts one itself.
func boundRun(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(dir), &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711,size=64m"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

func prepare(bin string) error {
	d, err := daemon.New(bin, "api")
	if err != nil {
		return err
	}
	d.Config = fmt.Sprintf("[network]\nmode = \"builtin\"\n[registry]\nconfig_dir = %q\nstall_timeout = %q\n[runtime]\nhandlers = [\"other\"]\ncgroup_driver = %q\n[log]\nlevel = \"debug\"\n",
		filepath.Join(d.Dir, "certs.d"), stallTimeout, daemon.Driver())
	shared.logs = filepath.Join(d.Dir, "logs")
	if err := errors.Join(boundRun(d.Run), os.MkdirAll(shared.logs, 0o755), daemon.MakeParent(parent), d.Load(filepath.Join(bin, "image.tar"))); err != nil {
		return err
	}
	if err := d.Start(); err != nil {
		return err
	}
	shared.daemon = d
	// The first pod brings what stays: the bridge, the chains, the daemon's own cgroup.
	ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
	defer cancel()
	config := podConfig("first")
	r, err := d.Runtime.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		return fmt.Errorf("run the first pod: %w\n%s", err, d.LogTail(20))
	}
	c, err := d.Runtime.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: r.GetPodSandboxId(), Config: containerConfig("first", "true"), SandboxConfig: config})
	if err == nil {
		_, err = d.Runtime.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: c.ContainerId})
	}
	if err != nil {
		return fmt.Errorf("run the first container: %w\n%s", err, d.LogTail(20))
	}
	if _, err := d.Runtime.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: r.GetPodSandboxId()}); err != nil {
		return fmt.Errorf("remove the first pod: %w", err)
	}
	_ = os.RemoveAll(shared.logs)
	shared.clean = settled(d)
	return nil
}

// settled looks until the last pod's link is gone and two looks are the same: the kernel takes links and cgroups away in
// its own time.
func settled(d *daemon.Daemon) []string {
	before := d.Look()
	for range 100 {
		time.Sleep(50 * time.Millisecond)
		now := d.Look()
		link := slices.ContainsFunc(now, func(s string) bool { return strings.HasPrefix(s, "link cri") && s != "link cri-mini0" })
		if !link && len(daemon.Difference(before, now)) == 0 {
			return now
		}
		before = now
	}
	return before
}

// mustLookLike waits until the machine is as it was, and lists the differences when it does not become so.
func (n *node) mustLookLike(want []string) {
	n.t.Helper()
	mustSettle(n.t, want, n.Look)
}

// mustSettle waits for the machine to look as wanted: the kernel is behind with what a network namespace had.
func mustSettle(t testing.TB, want []string, look func() []string) {
	t.Helper()
	const limit = 30 * time.Second
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		diff := daemon.Difference(want, look())
		if len(diff) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("after %s something is left or missing:\n  %s", limit, strings.Join(diff, "\n  "))
			return
		}
	}
}

// unchanged says whether what f does leaves nothing behind.
func (n *node) unchanged(f func()) {
	n.t.Helper()
	var before []string
	until(n.t, "a pod is still on its way into the tomb", func() bool { // behind the back of the request that changed it
		before = n.Look()
		return n.buried(before)
	})
	f()
	n.mustLookLike(before)
}

// buried tells whether every pod has its record in the tomb, and none is being written.
func (n *node) buried(look []string) bool {
	has := func(part string) bool {
		return slices.ContainsFunc(look, func(s string) bool { return strings.Contains(s, part) })
	}
	r, err := n.Runtime.ListPodSandbox(n.ctx(), &criapi.ListPodSandboxRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range r.Items {
		if !has("/tomb/" + p.Id + ".json") {
			return false
		}
	}
	return !has("/tomb/.tmp-")
}

func (n *node) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
	defer cancel()
	r, err := n.Runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
	if err != nil {
		n.t.Errorf("ListPodSandbox: %v", err)
	}
	for _, p := range r.GetItems() {
		if _, err := n.Runtime.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: p.Id}); err != nil {
			n.t.Errorf("RemovePodSandbox: %v", err)
		}
	}
	_ = os.RemoveAll(shared.logs)
}

// ctx bounds one call.
func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
	n.t.Cleanup(cancel)
	return ctx
}
