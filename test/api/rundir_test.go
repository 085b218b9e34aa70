package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// another gives a daemon beside the shared one, which leaves nothing but its state directory, which goes too.
func another(t *testing.T, name string) *node {
	t.Helper()
	d, err := daemon.New(start(t).Bin, name)
	if err != nil {
		t.Fatal(err)
	}
	d.Config = fmt.Sprintf("[network]\nmode = \"builtin\"\nbridge = %q\npod_cidr = \"10.93.0.0/16\"\n[registry]\nconfig_dir = %q\n", name, filepath.Join(d.Dir, "certs.d"))
	n := &node{d, t}
	before := n.Look()
	t.Cleanup(func() {
		if err := errors.Join(d.Stop(), os.RemoveAll(d.State)); err != nil {
			t.Error(err)
		}
		n.mustLookLike(before)
	})
	return n
}

// beside gives another daemon that shares with the first what change makes it share.
func beside(t *testing.T, first *node, change func(d *daemon.Daemon)) *daemon.Daemon {
	t.Helper()
	d := *first.Daemon
	d.Dir = t.TempDir()
	d.Run, d.State = first.Run+"-second", filepath.Join(d.Dir, "state")
	change(&d)
	return &d
}

// TestSecondDaemonIsRefused: whatever the two share, the one that came first goes on unharmed, and the other one says
// what it is and whose.
func TestSecondDaemonIsRefused(t *testing.T) {
	first := another(t, "api-first")
	if err := first.Load(filepath.Join(first.Bin, "image.tar")); err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	p := first.runPod("p")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(first.Run, link); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprintf("pid %d ", first.PID())
	for _, tc := range []struct {
		name   string
		change func(d *daemon.Daemon)
		says   []string
	}{
		{"run_dir", func(d *daemon.Daemon) { d.Run = first.Run }, []string{"run_dir " + first.Run + ": ", pid}},
		{"run_dir by a link", func(d *daemon.Daemon) { d.Run = link }, []string{"run_dir " + link + ": ", pid}},
		{"state_dir", func(d *daemon.Daemon) { d.State = first.State }, []string{"state_dir " + first.State + ": ", pid}},
		{"socket", func(d *daemon.Daemon) { d.Config = fmt.Sprintf("socket = %q\n%s", first.Socket(), d.Config) }, []string{"socket " + first.Socket() + ": ", pid}},
		{"all", func(d *daemon.Daemon) { d.Run, d.State = first.Run, first.State }, []string{"state_dir " + first.State + ": ", pid}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			first.t = t
			first.unchanged(func() {
				out, err := beside(t, first, tc.change).Refused()
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range tc.says {
					if !strings.Contains(out, s) {
						t.Errorf("no %q in: %s", s, out)
					}
				}
			})
			first.mustList(1, 0)
			if st := p.status(); st.State != criapi.PodSandboxState_SANDBOX_READY {
				t.Errorf("the pod of the first is %s", st.State)
			}
		})
	}
	first.t = t
	// The same state_dir under another run_dir: no daemon is met there, and the store is another's.
	second := beside(t, first, func(d *daemon.Daemon) { d.State = first.State })
	err := second.Load(filepath.Join(first.Bin, "image.tar"))
	if err == nil || !strings.Contains(err.Error(), "state_dir "+first.State) || !strings.Contains(err.Error(), pid) || !strings.Contains(err.Error(), "stop that one first") {
		t.Errorf("image load into another daemon's state_dir: %v", err)
	}
	first.removeAll()
}

// TestRunDirAtTheEnd: what a daemon that ends without pods leaves of its run directory is what was there before it. With
// a pod the directory stays, and the next daemon goes on.
func TestRunDirAtTheEnd(t *testing.T) {
	for _, tc := range []struct {
		name  string
		tmpfs string // directory to mount one on beforehand
		run   string // run_dir
	}{
		{"on disk", "", "end"},
		{"below a tmpfs", "mnt", "mnt/end"},
		{"a tmpfs itself", "mnt", "mnt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := another(t, "api-end")
			base := n.Run
			t.Cleanup(func() { n.Run = base })
			if tc.tmpfs != "" {
				mountTmpfs(t, base, tc.tmpfs)
			}
			before := n.lookAt(base)
			n.Run = filepath.Join(base, tc.run)
			if err := n.Load(filepath.Join(n.Bin, "image.tar")); err != nil {
				t.Fatal(err)
			}
			for _, end := range []func() error{n.Stop, n.Kill} {
				n.liveAndEnd(end)
				mustSettle(t, before, func() []string { return n.lookAt(base) })
			}
		})
	}
}

// lookAt lists the machine and a directory around run_dir, without the state.
func (n *node) lookAt(dir string) []string {
	d := *n.Daemon
	d.Run = dir
	return slices.DeleteFunc(d.Look(), func(s string) bool { return strings.HasPrefix(s, "state ") })
}

func mountTmpfs(t *testing.T, base, name string) {
	t.Helper()
	dir := filepath.Join(base, name)
	if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount("somebody", dir, "tmpfs", 0, "mode=755")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, 0), os.RemoveAll(base)); err != nil {
			t.Errorf("unmount what was there before the daemon: %v", err)
		}
	})
}

// liveAndEnd starts the daemon, runs a pod with a container, ends the daemon, starts it again, removes the pod and stops.
func (n *node) liveAndEnd(end func() error) {
	n.t.Helper()
	for _, begin := range []func(){func() { n.runPod("p").run("c", "", idle) }, func() {}} {
		if err := n.Start(); err != nil {
			n.t.Fatal(err)
		}
		begin()
		n.mustList(1, 1)
		if err := end(); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := n.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.removeAll()
	if err := n.Stop(); err != nil {
		n.t.Fatal(err)
	}
}

// TestFailedStartLeavesNothing: neither a mount nor a directory.
func TestFailedStartLeavesNothing(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, tc := range []struct{ name, config, says string }{
		{"no helper", "[runtime]\ninit_path = \"/nowhere/cri-mini-init\"\n", "/nowhere/cri-mini-init"},
		{"address is taken", fmt.Sprintf("[streaming]\naddress = %q\n", busy.Addr()), "streaming.address"},
		{"socket is a file", "socket = \"/etc/passwd\"\n", "socket /etc/passwd: what is there is not a socket"},
		{"socket below a file", "socket = \"/etc/passwd/socket\"\n", "/etc/passwd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := another(t, "api-failed")
			before := n.lookAt(n.Run)
			n.Config = tc.config
			out, err := n.Refused()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, tc.says) {
				t.Errorf("no %q in: %s", tc.says, out)
			}
			mustSettle(t, before, func() []string { return n.lookAt(n.Run) })
			if _, err := os.Stat(n.Run); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("run_dir is still there: %v", err)
			}
		})
	}
}
