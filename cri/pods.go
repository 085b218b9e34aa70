package cri

import (
	"context"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox makes a pod.
func (s *Server) RunPodSandbox(ctx context.Context, r *criapi.RunPodSandboxRequest) (*criapi.RunPodSandboxResponse, error) {
	id, err := s.Pods.RunPod(ctx, r.GetConfig(), r.GetRuntimeHandler())
	if err != nil {
		return nil, err
	}
	return &criapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox ends what runs in a pod; success for an unknown one.
func (s *Server) StopPodSandbox(ctx context.Context, r *criapi.StopPodSandboxRequest) (*criapi.StopPodSandboxResponse, error) {
	return &criapi.StopPodSandboxResponse{}, s.Pods.StopPod(ctx, r.GetPodSandboxId())
}

// RemovePodSandbox removes a pod with its containers; success for an unknown one.
func (s *Server) RemovePodSandbox(ctx context.Context, r *criapi.RemovePodSandboxRequest) (*criapi.RemovePodSandboxResponse, error) {
	return &criapi.RemovePodSandboxResponse{}, s.Pods.RemovePod(ctx, r.GetPodSandboxId())
}

// PodSandboxStatus tells about a pod.
func (s *Server) PodSandboxStatus(_ context.Context, r *criapi.PodSandboxStatusRequest) (*criapi.PodSandboxStatusResponse, error) {
	st, info, err := s.Pods.PodStatus(r.GetPodSandboxId(), r.GetVerbose())
	if err != nil {
		return nil, err
	}
	return &criapi.PodSandboxStatusResponse{Status: st, Info: info}, nil
}

// UpdatePodSandboxResources takes over what a pod as a whole may use.
func (s *Server) UpdatePodSandboxResources(ctx context.Context, r *criapi.UpdatePodSandboxResourcesRequest) (*criapi.UpdatePodSandboxResourcesResponse, error) {
	return &criapi.UpdatePodSandboxResourcesResponse{}, s.Pods.UpdatePod(ctx, r.GetPodSandboxId(), r.GetOverhead(), r.GetResources())
}

// ListPodSandbox lists pods.
func (s *Server) ListPodSandbox(_ context.Context, r *criapi.ListPodSandboxRequest) (*criapi.ListPodSandboxResponse, error) {
	return &criapi.ListPodSandboxResponse{Items: s.Pods.ListPods(r.GetFilter())}, nil
}
