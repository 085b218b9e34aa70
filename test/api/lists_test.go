package api

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// collect reads a streamed list to its end; every message must have at least one item.
func collect[R, T any](t *testing.T, stream grpc.ServerStreamingClient[R], err error, items func(*R) []T) (all []T, messages int) {
	t.Helper()
	for err == nil {
		var r *R
		if r, err = stream.Recv(); err == nil {
			if len(items(r)) == 0 {
				t.Error("a message without an item")
			}
			all = append(all, items(r)...)
			messages++
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all, messages
}

// like wants two lists with the same ids.
func like[T any](t *testing.T, what string, got, want []T, id func(T) string) {
	t.Helper()
	ids := func(list []T) []string {
		var s []string
		for _, e := range list {
			s = append(s, id(e))
		}
		slices.Sort(s)
		return s
	}
	if g, w := ids(got), ids(want); !slices.Equal(g, w) || len(w) == 0 {
		t.Errorf("%s: %v, want %v", what, g, w)
	}
}

// TestStreamedLists hold what the plain lists do.
func TestStreamedLists(t *testing.T) {
	n := start(t)
	var first *pod
	for i := range 3 {
		p := n.runPod(fmt.Sprint("pod", i))
		p.run("main", "", idle)
		if first == nil {
			first = p
		}
	}
	first.create("second", "", idle)
	rt, ctx := n.Runtime, n.ctx()

	pods, err := rt.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ps, err := rt.StreamPodSandboxes(ctx, &criapi.StreamPodSandboxesRequest{})
	got, _ := collect(t, ps, err, (*criapi.StreamPodSandboxesResponse).GetPodSandboxes)
	like(t, "pods", got, pods.Items, (*criapi.PodSandbox).GetId)
	ps, err = rt.StreamPodSandboxes(ctx, &criapi.StreamPodSandboxesRequest{Filter: &criapi.PodSandboxFilter{Id: first.id}})
	if got, _ := collect(t, ps, err, (*criapi.StreamPodSandboxesResponse).GetPodSandboxes); len(got) != 1 || got[0].Id != first.id {
		t.Errorf("one pod: %v", got)
	}
	ps, err = rt.StreamPodSandboxes(ctx, &criapi.StreamPodSandboxesRequest{Filter: &criapi.PodSandboxFilter{Id: "nobody"}})
	if got, messages := collect(t, ps, err, (*criapi.StreamPodSandboxesResponse).GetPodSandboxes); len(got) != 0 || messages != 0 {
		t.Errorf("no pod: %v", got)
	}

	ctrs, err := rt.ListContainers(ctx, &criapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cs, err := rt.StreamContainers(ctx, &criapi.StreamContainersRequest{})
	list, _ := collect(t, cs, err, (*criapi.StreamContainersResponse).GetContainers)
	like(t, "containers", list, ctrs.Containers, (*criapi.Container).GetId)

	stats, err := rt.ListContainerStats(ctx, &criapi.ListContainerStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ss, err := rt.StreamContainerStats(ctx, &criapi.StreamContainerStatsRequest{})
	usage, _ := collect(t, ss, err, (*criapi.StreamContainerStatsResponse).GetContainerStats)
	like(t, "container stats", usage, stats.Stats, func(s *criapi.ContainerStats) string { return s.GetAttributes().GetId() })

	podStats, err := rt.ListPodSandboxStats(ctx, &criapi.ListPodSandboxStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	pss, err := rt.StreamPodSandboxStats(ctx, &criapi.StreamPodSandboxStatsRequest{})
	podUsage, _ := collect(t, pss, err, (*criapi.StreamPodSandboxStatsResponse).GetPodSandboxStats)
	like(t, "pod stats", podUsage, podStats.Stats, func(s *criapi.PodSandboxStats) string { return s.GetAttributes().GetId() })

	metrics, err := rt.ListPodSandboxMetrics(ctx, &criapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ms, err := rt.StreamPodSandboxMetrics(ctx, &criapi.StreamPodSandboxMetricsRequest{})
	readings, _ := collect(t, ms, err, (*criapi.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics)
	like(t, "metrics", readings, metrics.PodMetrics, (*criapi.PodSandboxMetrics).GetPodSandboxId)

	images, err := n.Images.ListImages(ctx, &criapi.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	is, err := n.Images.StreamImages(ctx, &criapi.StreamImagesRequest{})
	pictures, _ := collect(t, is, err, (*criapi.StreamImagesResponse).GetImages)
	like(t, "images", pictures, images.Images, (*criapi.Image).GetId)
}

// TestStreamedListsAreCutIntoMessages: no message grows with the node.
func TestStreamedListsAreCutIntoMessages(t *testing.T) {
	n := start(t)
	p := n.runPod("many")
	const each = 200 << 10
	for i := range 20 {
		p.create(fmt.Sprint("c", i), "", idle, func(c *criapi.ContainerConfig) {
			c.Annotations = map[string]string{"ballast": strings.Repeat("x", each)}
		})
	}
	s, err := n.Runtime.StreamContainers(n.ctx(), &criapi.StreamContainersRequest{})
	all, messages := collect(t, s, err, func(r *criapi.StreamContainersResponse) []*criapi.Container {
		if size := proto.Size(r); size > 3<<20/2 {
			t.Errorf("a message has %d bytes", size)
		}
		return r.Containers
	})
	if len(all) != 20 || messages < 20*each>>20 {
		t.Errorf("%d containers in %d messages", len(all), messages)
	}
}
