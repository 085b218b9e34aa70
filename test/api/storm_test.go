package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// storm is many clients who do whatever comes to their mind with the same few pods and containers, and lose patience.
type storm struct {
	n *node

	mu         sync.Mutex
	pods, ctrs []string
	tally      map[codes.Code]int
}

func (s *storm) remember(list *[]string, id string) {
	if id == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*list = append(*list, id)
}

// some gives one of the last ids, "" of none.
func (s *storm) some(r *rand.Rand, list *[]string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(*list); n > 0 {
		return (*list)[n-1-r.IntN(min(n, 6))]
	}
	return "none"
}

// act makes one request. An impatient one is given up after a moment.
func (s *storm) act(r *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*rpcLimit)
	defer cancel()
	impatient := r.IntN(4) == 0
	if impatient {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(15000))*time.Microsecond)
		defer cancel()
	}
	what, err := s.request(ctx, r)
	code := status.Code(err)
	s.mu.Lock()
	s.tally[code]++
	s.mu.Unlock()
	gaveUp := impatient && (code == codes.DeadlineExceeded || code == codes.Canceled)
	switch code {
	case codes.OK, codes.NotFound, codes.FailedPrecondition:
		return
	case codes.Unknown: // overtaken by a stop or a removal
		for _, words := range []string{"stopped while it started", "the process has ended", "context canceled"} {
			if strings.Contains(err.Error(), words) {
				return
			}
		}
	}
	if !gaveUp {
		s.n.t.Errorf("%s: %v", what, err)
	}
}

func (s *storm) request(ctx context.Context, r *rand.Rand) (what string, err error) {
	rt := s.n.Runtime
	pod, ctr := s.some(r, &s.pods), s.some(r, &s.ctrs)
	config := podConfig(fmt.Sprint("storm", r.IntN(3)))
	switch r.IntN(16) {
	case 0, 1:
		resp, err := rt.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		s.remember(&s.pods, resp.GetPodSandboxId())
		return "RunPodSandbox", err
	case 2, 3, 4:
		resp, err := rt.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: containerConfig(fmt.Sprint("c", r.IntN(3)), "sleep 1000 & wait"), SandboxConfig: config})
		s.remember(&s.ctrs, resp.GetContainerId())
		return "CreateContainer", err
	case 5, 6, 7:
		_, err := rt.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: ctr})
		return "StartContainer", err
	case 8, 9:
		_, err := rt.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"true"}, Timeout: 20})
		return "ExecSync", err
	case 10:
		_, err := rt.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: ctr})
		return "StopContainer", err
	case 11:
		_, err := rt.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: ctr})
		return "RemoveContainer", err
	case 12:
		_, err := rt.UpdateContainerResources(ctx, &criapi.UpdateContainerResourcesRequest{ContainerId: ctr, Linux: &criapi.LinuxContainerResources{CpuShares: 100 + r.Int64N(100), OomScoreAdj: 900}})
		return "UpdateContainerResources", err
	case 13:
		_, err := rt.ListContainerStats(ctx, &criapi.ListContainerStatsRequest{})
		return "ListContainerStats", err
	case 14:
		_, err := rt.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: ctr})
		return "ReopenContainerLog", err
	}
	if r.IntN(3) > 0 {
		_, err := rt.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
		return "PodSandboxStatus", err
	}
	if r.IntN(2) == 0 {
		_, err := rt.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: pod})
		return "StopPodSandbox", err
	}
	_, err = rt.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: pod})
	return "RemovePodSandbox", err
}

// TestStorm: whatever the order in which twelve clients do things with the same pods, each gets an answer, and nothing
// is left when all is removed.
func TestStorm(t *testing.T) {
	acts := 250
	if v, err := strconv.Atoi(os.Getenv("STORM_ACTS")); err == nil {
		acts = v
	}
	n := start(t)
	s := &storm{n: n, tally: map[codes.Code]int{}}
	var all sync.WaitGroup
	for client := range 12 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), uint64(client)))
			for range acts {
				s.act(r)
			}
		})
	}
	all.Wait()
	t.Logf("%v", s.tally)
}
