package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// subscriber reads events of the pods of one test.
type subscriber struct {
	n      *node
	stream criapi.RuntimeService_GetContainerEventsClient
}

// subscribe returns when the daemon listens: what happens from now on is told.
func (n *node) subscribe() *subscriber {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.ctx())
	n.t.Cleanup(cancel)
	s, err := n.Runtime.GetContainerEvents(ctx, &criapi.GetEventsRequest{})
	if err == nil {
		_, err = s.Header()
	}
	if err != nil {
		n.t.Fatalf("GetContainerEvents: %v", err)
	}
	return &subscriber{n, s}
}

// next gives an event.
func (s *subscriber) next() *criapi.ContainerEventResponse {
	s.n.t.Helper()
	e, err := s.stream.Recv()
	if err != nil {
		s.n.t.Fatalf("GetContainerEvents: %v", err)
	}
	return e
}

// short is "CREATED 1234".
func short(e *criapi.ContainerEventResponse) string {
	kind := strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT")
	return kind + " " + e.ContainerId[:12]
}

// TestEvents follows a life: each event has the state of the whole pod as it was then, as kubelet's evented PLEG takes it.
func TestEvents(t *testing.T) {
	n := start(t)
	one, two := n.subscribe(), n.subscribe()
	p := n.runPod("events")
	c := p.run("main", "exit 7")
	c.mustEnd(7, "Error")
	d := p.create("never", "", idle)
	e := p.run("running", "", idle)
	c.remove()
	bad := p.create("bad", "", func(c *criapi.ContainerConfig) { c.Command = []string{"/no/such/program"} })
	if err := bad.start(); err == nil {
		t.Error("a program that is not there was started")
	}
	for range 2 {
		if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Runtime.RemovePodSandbox(n.ctx(), &criapi.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	ready, not := criapi.PodSandboxState_SANDBOX_READY, criapi.PodSandboxState_SANDBOX_NOTREADY
	want := []struct {
		what       string
		id         string
		state      criapi.PodSandboxState
		containers string // states, C R or E, in any order
	}{
		{"CREATED", p.id, ready, ""}, {"STARTED", p.id, ready, ""}, {"CREATED", c.id, ready, "C"}, {"STARTED", c.id, ready, "R"}, {"STOPPED", c.id, ready, "E"},
		{"CREATED", d.id, ready, "CE"}, {"CREATED", e.id, ready, "CCE"}, {"STARTED", e.id, ready, "CER"}, {"DELETED", c.id, ready, "CR"},
		{"CREATED", bad.id, ready, "CCR"}, {"STOPPED", bad.id, ready, "CER"}, {"STOPPED", e.id, not, "CEE"}, {"STOPPED", p.id, not, "CEE"},
		{"DELETED", "", not, "??"}, {"DELETED", "", not, "?"}, {"DELETED", "", not, ""}, {"DELETED", p.id, not, ""},
	}
	var last int64
	for i, w := range want {
		got, again := one.next(), two.next()
		if short(got) != short(again) || got.CreatedAt != again.CreatedAt {
			t.Errorf("event %d: two subscribers hear %s and %s", i, short(got), short(again))
		}
		if !strings.HasPrefix(short(got), w.what) || w.id != "" && got.ContainerId != w.id {
			t.Fatalf("event %d is %s, want %s %.12s", i, short(got), w.what, w.id)
		}
		if st := got.PodSandboxStatus; st.GetId() != p.id || st.GetMetadata().GetUid() != "uid-events" || st.GetState() != w.state {
			t.Errorf("event %d, %s: the pod is %v", i, short(got), st)
		}
		if s := states(got.ContainersStatuses); s != w.containers && (w.id != "" || len(s) != len(w.containers)) {
			t.Errorf("event %d, %s: the containers are %q, want %q", i, short(got), s, w.containers)
		}
		if got.CreatedAt < last {
			t.Errorf("event %d, %s: is older than the one before", i, short(got))
		}
		last = got.CreatedAt
	}
}

// states gives the sorted first letters.
func states(list []*criapi.ContainerStatus) string {
	count := map[byte]int{}
	for _, st := range list {
		count[strings.TrimPrefix(st.State.String(), "CONTAINER_")[0]]++
	}
	return strings.Repeat("C", count['C']) + strings.Repeat("E", count['E']) + strings.Repeat("R", count['R'])
}

// TestEventsOfAStopTellTheExitCode: the event of an end comes with how it ended, OOM kills too.
func TestEventsOfAStopTellTheExitCode(t *testing.T) {
	n := start(t)
	p := n.runPod("stops")
	s := n.subscribe()
	c := p.run("main", "exec dd if=/dev/zero of=/dev/null bs=100M count=1", func(c *criapi.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = 20 << 20 })
	for {
		e := s.next()
		if e.ContainerEventType != criapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
			continue
		}
		if st := e.ContainersStatuses; len(st) != 1 || st[0].Id != c.id || st[0].ExitCode != 137 || st[0].Reason != "OOMKilled" || st[0].FinishedAt == 0 {
			t.Errorf("%v", e)
		}
		return
	}
}

// TestEventsDropASlowReader: a client that does not read blocks nobody, is cut off and told so; others hear everything.
func TestEventsDropASlowReader(t *testing.T) {
	n := start(t)
	p := n.runPod("slow", func(c *criapi.PodSandboxConfig) {
		c.Annotations = map[string]string{"ballast": strings.Repeat("x", 60000)} // fills windows and buffers soon
	})
	slow, quick := n.subscribe(), n.subscribe()
	heard := make(chan int, 1)
	const rounds = 700
	go func() {
		count := 0
		for count < 2*rounds {
			if _, err := quick.stream.Recv(); err != nil {
				break
			}
			count++
		}
		heard <- count
	}()
	for i := range rounds {
		began := time.Now()
		p.create(fmt.Sprint("c", i), "", idle).remove()
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("with a slow reader a container takes %s", took)
		}
	}
	if got := <-heard; got != 2*rounds {
		t.Errorf("the quick reader has heard %d events, want %d", got, 2*rounds)
	}
	var err error
	count := 0
	for ; err == nil; count++ {
		_, err = slow.stream.Recv()
	}
	mustFail(t, err, codes.ResourceExhausted, "not read in time", "subscribe again")
	if count >= 2*rounds {
		t.Errorf("the slow reader got %d events", count)
	}
	if log := n.LogTail(8000); !strings.Contains(log, "drop subscribers of events") {
		t.Error("the log does not tell of it")
	}
}

// TestEventsEndWithTheDaemon: a stop does not wait for those who listen.
func TestEventsEndWithTheDaemon(t *testing.T) {
	n := start(t)
	n.runPod("end").run("main", "", idle)
	s := n.subscribe()
	began := time.Now()
	ended := make(chan error, 1)
	go func() { _, err := s.stream.Recv(); ended <- err }()
	n.again()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a restart with a listener takes %s", took)
	}
	if err := <-ended; err == nil {
		t.Error("the stream goes on")
	}
	n.subscribe()
}
