package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubelet is a client that asks again for as long as there is no daemon.
type kubelet struct {
	n       *node
	rt      criapi.RuntimeServiceClient
	name    string
	unknown *atomic.Int64 // ends that nobody saw
}

func newKubelet(n *node, name string, unknown *atomic.Int64) *kubelet {
	conn, err := grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return &kubelet{n, criapi.NewRuntimeServiceClient(conn), name, unknown}
}

// retry makes a request until it has an answer. The daemon may have died over it.
func (k *kubelet) retry(what string, f func(ctx context.Context) error) bool {
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), rpcLimit)
		err = f(ctx)
		cancel()
		if status.Code(err) != codes.Unavailable {
			break
		}
	}
	if err != nil {
		k.n.t.Errorf("%s: %s: %v", k.name, what, err)
	}
	return err == nil
}

// live is one pod's life: a container that ends by itself with 7, and one that is killed.
func (k *kubelet) live(round int) {
	config := k.n.podConfig(fmt.Sprintf("%s-%d", k.name, round))
	_ = os.MkdirAll(config.LogDirectory, 0o755)
	defer os.RemoveAll(config.LogDirectory)
	var pod string
	if !k.retry("RunPodSandbox", func(ctx context.Context) error {
		r, err := k.rt.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		pod = r.GetPodSandboxId()
		return err
	}) {
		return
	}
	defer k.retry("RemovePodSandbox", func(ctx context.Context) error {
		_, err := k.rt.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: pod})
		return err
	})
	ends, runs := k.start(config, pod, "ends", "sleep 0.1; exit 7"), k.start(config, pod, "runs", "while :; do sleep 0.05; done")
	if ends == "" || runs == "" {
		return
	}
	k.mustEnd(ends, 7)
	k.retry("StopContainer", func(ctx context.Context) error {
		_, err := k.rt.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: runs})
		return err
	})
	k.mustEnd(runs, 137)
}

func (k *kubelet) start(config *criapi.PodSandboxConfig, pod, name, script string) (id string) {
	if !k.retry("CreateContainer", func(ctx context.Context) error {
		r, err := k.rt.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: containerConfig(name, script), SandboxConfig: config})
		id = r.GetContainerId()
		return err
	}) {
		return ""
	}
	begun := false
	if !k.retry("StartContainer "+name, func(ctx context.Context) error {
		_, err := k.rt.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: id})
		if begun && status.Code(err) == codes.FailedPrecondition { // it had started, and has ended
			return nil
		}
		begun = true
		return err
	}) {
		return ""
	}
	return id
}

// mustEnd waits for an end with this code. While daemon and monitor are both dead nobody is there to learn one.
func (k *kubelet) mustEnd(id string, code int32) {
	var st *criapi.ContainerStatus
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !k.retry("ContainerStatus", func(ctx context.Context) error {
			r, err := k.rt.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id})
			st = r.GetStatus()
			return err
		}) {
			return
		}
		if st.State == criapi.ContainerState_CONTAINER_EXITED {
			break
		}
	}
	if st.GetReason() == "Unknown" && st.ExitCode == 255 {
		k.unknown.Add(1)
		return
	}
	if st.GetState() != criapi.ContainerState_CONTAINER_EXITED || st.ExitCode != code {
		k.n.t.Errorf("%s: container %s is %s with code %d %s %q, want an end with %d", k.name, id[:12], st.State, st.ExitCode, st.Reason, st.Message, code)
	}
}

// TestStormOfStrikes: daemon and monitors are killed and stopped again and again while pods come and go. Each request has
// its answer in the end, each container its own exit code, and nothing is left.
func TestStormOfStrikes(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	lasts := 12 * time.Second
	if v, err := strconv.Atoi(os.Getenv("STORM_SECONDS")); err == nil {
		lasts = time.Duration(v) * time.Second
	}
	n.start()
	n.lap("warm", nil)
	var all sync.WaitGroup
	var over atomic.Bool
	var lives, unknown atomic.Int64
	for i := range 5 {
		k := newKubelet(n, fmt.Sprintf("k%d", i), &unknown)
		all.Go(func() {
			for round := 0; !over.Load() && !t.Failed(); round++ {
				k.live(round)
				lives.Add(1)
			}
		})
	}
	strikes := map[string]int{}
	for end := time.Now().Add(lasts); time.Now().Before(end) && !t.Failed(); time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond) {
		what := []string{"daemon", "monitors", "both", "stop"}[rand.IntN(4)]
		strikes[what]++
		switch what {
		case "daemon":
			n.restart()
		case "monitors":
			n.killMonitors()
		case "both":
			n.killMonitors()
			n.restart()
		case "stop":
			pids := n.stopMonitors()
			time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGCONT)
			}
		}
	}
	over.Store(true)
	all.Wait()
	t.Logf("= %d pods lived through strikes at %v; %d ends were seen by nobody", lives.Load(), strikes, unknown.Load())
	if unknown.Load() > 0 && strikes["both"] == 0 && strikes["daemon"]*strikes["monitors"] == 0 {
		t.Error("an end was lost though one of the two was always there")
	}
	n.mustList(0, 0)
	n.mustBeEmpty()
	n.stop()
}
