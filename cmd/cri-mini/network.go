package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/sandbox"
)

// nodeNetwork is the network in the words of cri.
type nodeNetwork struct{ *netns.Network }

// statusLimit bounds what CNI plugins may take to say how they are.
const statusLimit = 10 * time.Second

func (n nodeNetwork) Ready() (bool, string, string) {
	ctx, cancel := context.WithTimeout(context.Background(), statusLimit)
	defer cancel()
	st := n.Status(ctx)
	return st.Ready, st.Reason, st.Message
}

func (n nodeNetwork) SetPodCIDR(cidr string) error {
	err := n.Network.SetPodCIDR(cidr)
	if bad := (*netns.RequestError)(nil); errors.As(err, &bad) {
		return fmt.Errorf("%w: %w", err, sandbox.ErrInvalid)
	}
	return err
}
