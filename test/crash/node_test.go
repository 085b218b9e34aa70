package crash

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// rpcLimit bounds every call: one that takes longer hangs.
const rpcLimit = 30 * time.Second

// node is a machine with a daemon on it.
type node struct {
	t       testing.TB
	bin     string
	disk    string // a directory on disk
	run     string // the daemon's run directory
	state   string // the daemon's state directory
	logs    string
	cgroup  string // the parent of the pods' cgroups, which is there before them
	options string // more lines of configuration, of table runtime
	network string // lines of table network

	others map[int]bool // processes that were there before

	daemon  *exec.Cmd
	ended   chan struct{} // closed when the daemon has ended
	conn    *grpc.ClientConn
	rt      criapi.RuntimeServiceClient
	env     []string // of the next daemon that is started after a crash
	starts  int
	crashes int // daemons that ended without being asked to
}

// newNode makes the directories and loads the image. The machine is thrown away after the test, and all with it.
func newNode(t testing.TB, bin string) *node {
	t.Helper()
	n := &node{t: t, others: pids(), bin: bin, disk: os.Getenv("SCRATCH"), run: filepath.Join(os.Getenv("RUN"), "d"), cgroup: daemon.Parent("crash", "pod"), network: "mode = \"builtin\"\n"}
	n.state, n.logs = filepath.Join(n.disk, "state"), filepath.Join(n.disk, "logs")
	if n.disk == "" {
		t.Fatal("SCRATCH is not set: a test of this package is run by test/private")
	}
	if err := daemon.MakeParent(n.cgroup); err != nil {
		t.Fatal(err)
	}
	n.configure(16)
	out, err := exec.Command(filepath.Join(bin, "cri-mini"), "image", "load", "--config", n.config(), filepath.Join(bin, "image.tar")).CombinedOutput()
	if err != nil {
		t.Fatalf("load image: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's log ends with:\n%s", lastLines(n.daemonLog(), 60))
		}
		n.kill()
		if err := daemon.RemoveParent(n.cgroup); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) config() string    { return filepath.Join(n.disk, "config.toml") }
func (n *node) socket() string    { return filepath.Join(n.run, "cri-mini.sock") }
func (n *node) daemonLog() string { return filepath.Join(n.disk, "daemon.log") }

func (n *node) configure(podsPerMonitor int) {
	text := fmt.Sprintf("run_dir = %q\nstate_dir = %q\n[network]\n%s[runtime]\npods_per_monitor = %d\ncgroup_driver = %q\n%s[log]\nlevel = \"debug\"\n", n.run, n.state, n.network, podsPerMonitor, daemon.Driver(), n.options)
	if err := os.WriteFile(n.config(), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// on makes t the test that the node's failures belong to.
func (n *node) on(t testing.TB) *node {
	n.t = t
	return n
}

// start runs the daemon and waits until it serves; with a crash point in env it may end before that, and is started
// again without.
func (n *node) start(env ...string) {
	n.t.Helper()
	if err := n.tryStart(env...); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) tryStart(env ...string) error {
	f, err := os.OpenFile(n.daemonLog(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n.starts++
	cmd := exec.Command(filepath.Join(n.bin, "cri-mini"), "serve", "--config", n.config())
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	n.daemon, n.ended = cmd, ended
	if n.conn, err = grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20))); err != nil {
		return err
	}
	n.rt = criapi.NewRuntimeServiceClient(n.conn)
	for limit := time.Now().Add(20 * time.Second); ; {
		// The old socket may be there still: nobody answers on it.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := n.rt.Version(ctx, &criapi.VersionRequest{})
		cancel()
		if err == nil {
			return nil
		}
		n.conn.Close()
		if n.hasEnded(0) {
			if len(env) > 0 {
				n.crashes++
				return n.tryStart()
			}
			return fmt.Errorf("the daemon ended (%s); its log ends with:\n%s", n.daemon.ProcessState, lastLines(n.daemonLog(), 20))
		}
		if time.Now().After(limit) {
			_ = n.daemon.Process.Signal(syscall.SIGQUIT) // the log says where each goroutine stands
			n.hasEnded(time.Second)
			n.kill()
			return fmt.Errorf("the daemon does not serve after 20 s: %w", err)
		}
		time.Sleep(2 * time.Millisecond)
		n.conn, _ = grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		n.rt = criapi.NewRuntimeServiceClient(n.conn)
	}
}

func (n *node) hasEnded(wait time.Duration) bool {
	select {
	case <-n.ended:
		return true
	case <-time.After(wait):
		return false
	}
}

// kill ends the daemon by SIGKILL.
func (n *node) kill() {
	if n.daemon == nil {
		return
	}
	_ = n.daemon.Process.Kill()
	<-n.ended
	n.conn.Close()
	n.daemon = nil
}

// stop asks the daemon to end. There are no pods: nobody is left.
func (n *node) stop() {
	n.t.Helper()
	_ = n.daemon.Process.Signal(syscall.SIGTERM)
	if !n.hasEnded(10 * time.Second) {
		n.t.Error("the daemon does not end on SIGTERM")
	}
	n.kill()
	for end := time.Now().Add(settled); len(n.processes()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Errorf("%v after the daemon has ended there is still: %s", settled, strings.Join(n.processes(), "; "))
			return
		}
	}
}

// call makes a request. When the daemon crashes under it, it is started again and the same request is made again, as
// kubelet does; retry tells f that it is the second time.
func call[T any](n *node, what string, f func(ctx context.Context, retry bool) (T, error)) T {
	n.t.Helper()
	for retry := false; ; retry = true {
		v, err := try(n, func(ctx context.Context) (T, error) { return f(ctx, retry) })
		if err == nil {
			return v
		}
		if status.Code(err) != codes.Unavailable || !n.hasEnded(2*time.Second) {
			n.t.Fatalf("%s: %v", what, err)
		}
		n.crashes++
		n.conn.Close()
		env := n.env
		n.env = nil
		n.start(env...)
	}
}

// try makes a request once.
func try[T any](n *node, f func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
	defer cancel()
	return f(ctx)
}

// until waits for a condition, at most 20 s.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !f(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("after 20 s: %s", what)
		}
	}
}

// restart kills the daemon and starts it again.
func (n *node) restart() {
	n.t.Helper()
	n.kill()
	n.start()
}
