package cri

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/sandbox"
)

// GetContainerEvents tells what happens to pods and containers from now on, until the client hangs up. The headers go
// out at once: from then on nothing is missed. A client that does not read is cut off, and hears why when it reads
// again; the goroutine that is stuck in a Send to it ends with the stream.
func (s *Server) GetContainerEvents(_ *criapi.GetEventsRequest, out grpc.ServerStreamingServer[criapi.ContainerEventResponse]) error {
	sub := s.Pods.Events()
	defer sub.Close()
	if err := out.SendHeader(nil); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- forward(out.Context(), sub, out.Send) }()
	select {
	case err := <-ended:
		return hungUp(err)
	case <-sub.Done():
		_, err := sub.Next(out.Context())
		return err
	}
}

func forward(ctx context.Context, sub *sandbox.Subscription, send func(*criapi.ContainerEventResponse) error) error {
	for {
		event, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if err := send(event); err != nil {
			return err
		}
	}
}

// hungUp: a client that goes away is the ordinary end.
func hungUp(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
