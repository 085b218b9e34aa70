package cri

import (
	"context"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStats tells what a container uses.
func (s *Server) ContainerStats(_ context.Context, r *criapi.ContainerStatsRequest) (*criapi.ContainerStatsResponse, error) {
	st, err := s.Pods.ContainerStats(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &criapi.ContainerStatsResponse{Stats: st}, nil
}

// ListContainerStats tells what the running containers use.
func (s *Server) ListContainerStats(_ context.Context, r *criapi.ListContainerStatsRequest) (*criapi.ListContainerStatsResponse, error) {
	return &criapi.ListContainerStatsResponse{Stats: s.Pods.ListContainerStats(r.GetFilter())}, nil
}

// PodSandboxStats tells what a pod uses.
func (s *Server) PodSandboxStats(_ context.Context, r *criapi.PodSandboxStatsRequest) (*criapi.PodSandboxStatsResponse, error) {
	st, err := s.Pods.PodStats(r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	return &criapi.PodSandboxStatsResponse{Stats: st}, nil
}

// ListPodSandboxStats tells what the ready pods use.
func (s *Server) ListPodSandboxStats(_ context.Context, r *criapi.ListPodSandboxStatsRequest) (*criapi.ListPodSandboxStatsResponse, error) {
	return &criapi.ListPodSandboxStatsResponse{Stats: s.Pods.ListPodStats(r.GetFilter())}, nil
}

// ListMetricDescriptors tells which metrics there are; they are the same for the daemon's life.
func (s *Server) ListMetricDescriptors(context.Context, *criapi.ListMetricDescriptorsRequest) (*criapi.ListMetricDescriptorsResponse, error) {
	return &criapi.ListMetricDescriptorsResponse{Descriptors: s.Pods.MetricDescriptors()}, nil
}

// ListPodSandboxMetrics gives the metrics of the ready pods and their running containers.
func (s *Server) ListPodSandboxMetrics(context.Context, *criapi.ListPodSandboxMetricsRequest) (*criapi.ListPodSandboxMetricsResponse, error) {
	return &criapi.ListPodSandboxMetricsResponse{PodMetrics: s.Pods.ListPodMetrics()}, nil
}
