// Package cri serves the Container Runtime Interface (k8s.io/cri-api, runtime.v1) over gRPC: one file per group of
// RPCs. It checks nothing that sandbox and image check, decides nothing, and maps their errors to gRPC codes in one
// place (code). Only cmd/cri-mini imports it.
//
// Invariant: an RPC that is not served answers Unimplemented; none pretends.
package cri

import (
	"log/slog"

	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/image"
	"github.com/cri-mini/cri-mini/sandbox"
)

// Network is what Status and UpdateRuntimeConfig need of the network.
type Network interface {
	Ready() (ready bool, reason, message string)
	SetPodCIDR(string) error
}

// Server is both CRI services.
type Server struct {
	criapi.UnimplementedRuntimeServiceServer
	criapi.UnimplementedImageServiceServer

	Pods      *sandbox.Manager
	Images    *image.Store
	Network   Network
	Streaming *Streaming
	Handlers  []*criapi.RuntimeHandler
	Features  *criapi.RuntimeFeatures
	Release   string
	// CgroupDriver is who makes cgroups.
	CgroupDriver criapi.CgroupDriver
	// Info is what a verbose Status tells: facts about the machine, the effective configuration, counts.
	Info func() (map[string]string, error)
	// StateDir is where writable layers are, for ImageFsInfo.
	StateDir string
	Log      *slog.Logger
}

// maxMessage bounds a message in bytes, as kubelet and containerd have it: an ExecSync may answer 2 × 16 MiB.
const maxMessage = 64 << 20

// Register makes a gRPC server that serves both services and logs each RPC.
func (s *Server) Register() *grpc.Server {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.UnaryInterceptor(s.intercept), grpc.StreamInterceptor(s.interceptStream))
	criapi.RegisterRuntimeServiceServer(g, s)
	criapi.RegisterImageServiceServer(g, s)
	return g
}
