package cri

import (
	"context"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// apiVersion is the version of the CRI that is served.
const apiVersion = "v1"

// Version tells who answers.
func (s *Server) Version(context.Context, *criapi.VersionRequest) (*criapi.VersionResponse, error) {
	return &criapi.VersionResponse{Version: "0.1.0", RuntimeName: "cri-mini", RuntimeVersion: s.Release, RuntimeApiVersion: apiVersion}, nil
}

// Status tells whether pods can be run, and what the handlers can do.
func (s *Server) Status(_ context.Context, r *criapi.StatusRequest) (*criapi.StatusResponse, error) {
	ready, reason, message := s.Network.Ready()
	resp := &criapi.StatusResponse{
		Status: &criapi.RuntimeStatus{Conditions: []*criapi.RuntimeCondition{
			{Type: criapi.RuntimeReady, Status: true},
			{Type: criapi.NetworkReady, Status: ready, Reason: reason, Message: message},
		}},
		RuntimeHandlers: s.Handlers,
		Features:        s.Features,
	}
	var err error
	if r.GetVerbose() {
		resp.Info, err = s.Info()
	}
	return resp, err
}

// RuntimeConfig tells the cgroup driver. The kubelet asks once, when it starts, and takes the same.
func (s *Server) RuntimeConfig(context.Context, *criapi.RuntimeConfigRequest) (*criapi.RuntimeConfigResponse, error) {
	return &criapi.RuntimeConfigResponse{Linux: &criapi.LinuxRuntimeConfiguration{CgroupDriver: s.CgroupDriver}}, nil
}

// UpdateRuntimeConfig takes the node's pod CIDR; it is kept across restarts.
func (s *Server) UpdateRuntimeConfig(_ context.Context, r *criapi.UpdateRuntimeConfigRequest) (*criapi.UpdateRuntimeConfigResponse, error) {
	if cidr := r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr(); cidr != "" {
		if err := s.Network.SetPodCIDR(cidr); err != nil {
			return nil, err
		}
	}
	return &criapi.UpdateRuntimeConfigResponse{}, nil
}
