package main

import (
	"fmt"
	"net"

	"k8s.io/klog/v2"

	"github.com/cri-mini/cri-mini/cri"
)

// stream begins to serve exec, attach and port forwarding.
func (d *daemon) stream() (*cri.Streaming, error) {
	klog.SetSlogLogger(d.log) // cri-streaming's
	l, err := net.Listen("tcp", d.c.Streaming.Address)
	if err != nil {
		return nil, fmt.Errorf("streaming.address: %w", err)
	}
	s, err := cri.NewStreaming(l.Addr(), d.pods, d.c.Streaming.IdleTimeout, d.log)
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
