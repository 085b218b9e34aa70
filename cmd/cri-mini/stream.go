package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"k8s.io/klog/v2"

	"github.com/cri-mini/cri-mini/cri"
)

// stream begins to serve exec, attach and port forwarding.
func (d *daemon) stream() (*cri.Streaming, error) {
	klog.SetSlogLogger(slog.New(capped{d.log.Handler()}))
	l, err := net.Listen("tcp", d.c.Streaming.Address)
	if err != nil {
		return nil, fmt.Errorf("streaming.address: %w", err)
	}
	s, err := cri.NewStreaming(l.Addr(), d.pods, time.Duration(d.c.Streaming.IdleTimeout), d.log)
	if err != nil {
		return nil, err
	}
	go func() {
		if err := s.Serve(l.(*net.TCPListener)); err != nil {
			d.log.Error("streaming server ended", "err", err)
		}
	}()
	return s, nil
}

// capped is for the log of cri-streaming: what it calls an error is a client that hung up or a command that is not there.
type capped struct{ slog.Handler }

func (c capped) Enabled(ctx context.Context, l slog.Level) bool {
	return c.Handler.Enabled(ctx, min(l, slog.LevelInfo))
}

func (c capped) Handle(ctx context.Context, r slog.Record) error {
	r.Level = min(r.Level, slog.LevelInfo)
	return c.Handler.Handle(ctx, r)
}

func (c capped) WithAttrs(a []slog.Attr) slog.Handler { return capped{c.Handler.WithAttrs(a)} }
func (c capped) WithGroup(name string) slog.Handler   { return capped{c.Handler.WithGroup(name)} }
