package cri

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-mini/cri-mini/image"
	"github.com/cri-mini/cri-mini/sandbox"
)

// intercept logs each RPC once, with how long it took, and gives its error a code. A panic ends the RPC, not the
// daemon: other pods depend on it.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	err = s.observe(ctx, path.Base(info.FullMethod), ids(req), func() error {
		resp, err = next(ctx, req)
		return err
	})
	return resp, err
}

// interceptStream does the same for those that answer with a stream, at its end.
func (s *Server) interceptStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.observe(stream.Context(), path.Base(info.FullMethod), nil, func() error { return next(srv, stream) })
}

func (s *Server) observe(ctx context.Context, op string, ids []any, call func() error) (err error) {
	began := time.Now()
	defer func() {
		if r := recover(); r != nil {
			s.Log.Error("panic in RPC", "op", op, "err", r, "stack", stack())
			err = status.Errorf(codes.Internal, "internal error in %s: %v", op, r)
		}
	}()
	err = call()
	level := slog.LevelDebug
	if err != nil {
		err = status.Error(code(err), words(err))
		level = slog.LevelInfo
	}
	s.Log.Log(ctx, level, op, append(ids, "took", time.Since(began), "err", err)...)
	return err
}

// words of an error without the code that gRPC's own errors begin with, and without saying again what the code says.
func words(err error) string {
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok { // not a wrapped one, which has words around it
		return s.GRPCStatus().Message()
	}
	if errors.Is(err, sandbox.ErrInvalid) {
		return strings.TrimSuffix(err.Error(), ": "+sandbox.ErrInvalid.Error())
	}
	return err.Error()
}

// ids are the pod and container that a request names.
func ids(req any) []any {
	var out []any
	if r, ok := req.(interface{ GetPodSandboxId() string }); ok {
		out = append(out, "pod", r.GetPodSandboxId())
	}
	if r, ok := req.(interface{ GetContainerId() string }); ok {
		out = append(out, "ctr", r.GetContainerId())
	}
	return out
}

// code is the one place where errors become gRPC codes.
func code(err error) codes.Code {
	for _, c := range []struct {
		is   bool
		code codes.Code
	}{
		{status.Code(err) != codes.Unknown, status.Code(err)},
		{errors.Is(err, sandbox.ErrInvalid) || errors.Is(err, sandbox.ErrTooLarge) || errors.Is(err, image.ErrInvalidReference), codes.InvalidArgument},
		{errors.Is(err, sandbox.ErrNotFound) || errors.Is(err, image.ErrNotFound), codes.NotFound},
		{errors.Is(err, sandbox.ErrState) || errors.Is(err, sandbox.ErrGone) || errors.Is(err, image.ErrPlatform) || errors.Is(err, image.ErrUnsupported), codes.FailedPrecondition},
		{errors.Is(err, sandbox.ErrTimeout) || errors.Is(err, context.DeadlineExceeded), codes.DeadlineExceeded},
		{errors.Is(err, context.Canceled), codes.Canceled},
		{errors.Is(err, sandbox.ErrFull) || errors.Is(err, sandbox.ErrBehind), codes.ResourceExhausted},
		{errors.Is(err, image.ErrUnauthorized), codes.Unauthenticated},
		{errors.Is(err, image.ErrUnavailable) || errors.Is(err, sandbox.ErrStopping), codes.Unavailable},
		{errors.Is(err, image.ErrCorrupt), codes.DataLoss},
	} {
		if c.is {
			return c.code
		}
	}
	return codes.Unknown
}
