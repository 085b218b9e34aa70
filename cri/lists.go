package cri

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// batchSize bounds the items of one message of a streamed list, in bytes: far below what any client takes, and enough
// that a list of an ordinary node is one message.
const batchSize = 1 << 20

// batches sends items in lists of at least one, each item once. An item that is larger than a batch goes alone.
func batches[T proto.Message](items []T, send func([]T) error) error {
	first, size := 0, 0
	for i, item := range items {
		n := proto.Size(item)
		if i > first && size+n > batchSize {
			if err := send(items[first:i]); err != nil {
				return err
			}
			first, size = i, 0
		}
		size += n
	}
	if first == len(items) {
		return nil
	}
	return send(items[first:])
}

// StreamPodSandboxes is ListPodSandbox in as many messages as it takes.
func (s *Server) StreamPodSandboxes(r *criapi.StreamPodSandboxesRequest, out grpc.ServerStreamingServer[criapi.StreamPodSandboxesResponse]) error {
	return batches(s.Pods.ListPods(r.GetFilter()), func(list []*criapi.PodSandbox) error {
		return out.Send(&criapi.StreamPodSandboxesResponse{PodSandboxes: list})
	})
}

// StreamContainers is ListContainers in as many messages as it takes.
func (s *Server) StreamContainers(r *criapi.StreamContainersRequest, out grpc.ServerStreamingServer[criapi.StreamContainersResponse]) error {
	return batches(s.Pods.ListContainers(r.GetFilter()), func(list []*criapi.Container) error {
		return out.Send(&criapi.StreamContainersResponse{Containers: list})
	})
}

// StreamContainerStats is ListContainerStats in as many messages as it takes.
func (s *Server) StreamContainerStats(r *criapi.StreamContainerStatsRequest, out grpc.ServerStreamingServer[criapi.StreamContainerStatsResponse]) error {
	return batches(s.Pods.ListContainerStats(r.GetFilter()), func(list []*criapi.ContainerStats) error {
		return out.Send(&criapi.StreamContainerStatsResponse{ContainerStats: list})
	})
}

// StreamPodSandboxStats is ListPodSandboxStats in as many messages as it takes.
func (s *Server) StreamPodSandboxStats(r *criapi.StreamPodSandboxStatsRequest, out grpc.ServerStreamingServer[criapi.StreamPodSandboxStatsResponse]) error {
	return batches(s.Pods.ListPodStats(r.GetFilter()), func(list []*criapi.PodSandboxStats) error {
		return out.Send(&criapi.StreamPodSandboxStatsResponse{PodSandboxStats: list})
	})
}

// StreamPodSandboxMetrics is ListPodSandboxMetrics in as many messages as it takes.
func (s *Server) StreamPodSandboxMetrics(_ *criapi.StreamPodSandboxMetricsRequest, out grpc.ServerStreamingServer[criapi.StreamPodSandboxMetricsResponse]) error {
	return batches(s.Pods.ListPodMetrics(), func(list []*criapi.PodSandboxMetrics) error {
		return out.Send(&criapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: list})
	})
}

// StreamImages is ListImages in as many messages as it takes.
func (s *Server) StreamImages(r *criapi.StreamImagesRequest, out grpc.ServerStreamingServer[criapi.StreamImagesResponse]) error {
	return batches(s.images(r.GetFilter()), func(list []*criapi.Image) error {
		return out.Send(&criapi.StreamImagesResponse{Images: list})
	})
}
