package cri

import (
	"context"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer makes a container in a pod.
func (s *Server) CreateContainer(ctx context.Context, r *criapi.CreateContainerRequest) (*criapi.CreateContainerResponse, error) {
	id, err := s.Pods.CreateContainer(ctx, r.GetPodSandboxId(), r.GetConfig(), r.GetSandboxConfig())
	if err != nil {
		return nil, err
	}
	return &criapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer starts a container.
func (s *Server) StartContainer(ctx context.Context, r *criapi.StartContainerRequest) (*criapi.StartContainerResponse, error) {
	return &criapi.StartContainerResponse{}, s.Pods.StartContainer(ctx, r.GetContainerId())
}

// StopContainer ends a container; the timeout is in seconds, 0 kills at once.
func (s *Server) StopContainer(ctx context.Context, r *criapi.StopContainerRequest) (*criapi.StopContainerResponse, error) {
	return &criapi.StopContainerResponse{}, s.Pods.StopContainer(ctx, r.GetContainerId(), r.GetTimeout())
}

// RemoveContainer removes a container, killing it if it runs.
func (s *Server) RemoveContainer(ctx context.Context, r *criapi.RemoveContainerRequest) (*criapi.RemoveContainerResponse, error) {
	return &criapi.RemoveContainerResponse{}, s.Pods.RemoveContainer(ctx, r.GetContainerId())
}

// ContainerStatus tells about a container.
func (s *Server) ContainerStatus(_ context.Context, r *criapi.ContainerStatusRequest) (*criapi.ContainerStatusResponse, error) {
	st, info, err := s.Pods.ContainerStatus(r.GetContainerId(), r.GetVerbose())
	if err != nil {
		return nil, err
	}
	return &criapi.ContainerStatusResponse{Status: st, Info: info}, nil
}

// ListContainers lists containers.
func (s *Server) ListContainers(_ context.Context, r *criapi.ListContainersRequest) (*criapi.ListContainersResponse, error) {
	return &criapi.ListContainersResponse{Containers: s.Pods.ListContainers(r.GetFilter())}, nil
}

// UpdateContainerResources changes a container's limits.
func (s *Server) UpdateContainerResources(_ context.Context, r *criapi.UpdateContainerResourcesRequest) (*criapi.UpdateContainerResourcesResponse, error) {
	return &criapi.UpdateContainerResourcesResponse{}, s.Pods.UpdateContainer(r.GetContainerId(), r.GetLinux())
}

// ReopenContainerLog opens a container's log file again.
func (s *Server) ReopenContainerLog(ctx context.Context, r *criapi.ReopenContainerLogRequest) (*criapi.ReopenContainerLogResponse, error) {
	return &criapi.ReopenContainerLogResponse{}, s.Pods.ReopenLog(ctx, r.GetContainerId())
}

// ExecSync runs a command and answers its output and exit code; the timeout is in seconds.
func (s *Server) ExecSync(ctx context.Context, r *criapi.ExecSyncRequest) (*criapi.ExecSyncResponse, error) {
	res, err := s.Pods.ExecSync(ctx, r.GetContainerId(), r.GetCmd(), r.GetTimeout())
	if err != nil {
		return nil, err
	}
	return &criapi.ExecSyncResponse{Stdout: res.Stdout, Stderr: res.Stderr, ExitCode: int32(res.Code)}, nil
}
