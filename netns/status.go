package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/cri-mini/cri-mini/netns/nat"
)

// Reasons in Status.Reason.
const (
	ReasonReady          = "NetworkReady"
	ReasonNoConfig       = "NoNetworkConfig"
	ReasonInvalidConfig  = "InvalidNetworkConfig"
	ReasonPlugin         = "NetworkPluginNotReady"
	ReasonBuiltin        = "BuiltinNetworkNotReady"
	ReasonForeignForward = "ForeignForwardDrop" // ready, but pods may not get out
)

// Status is CRI's NetworkReady condition. Message is also set on a ready network
// when something keeps pods from reaching others.
type Status struct {
	Ready   bool
	Mode    string
	Reason  string
	Message string
}

// probeAge is how long the expensive findings (other programs' nft rules, the
// STATUS verb of CNI plugins) are used again: kubelet asks every few seconds.
const probeAge = 10 * time.Second

type probe struct {
	mu   sync.Mutex
	key  string
	at   time.Time
	warn Status
}

func (p *probe) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = time.Time{}
}

// of returns the last finding for key, or makes a new one. Only good news is kept.
func (p *probe) of(key string, look func() Status) Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key == key && time.Since(p.at) < probeAge {
		return p.warn
	}
	s := look()
	if s.Ready && s.Message == "" {
		p.key, p.at, p.warn = key, time.Now(), s
	} else {
		p.at = time.Time{}
	}
	return s
}

// Status says whether a pod could be attached now. In the built-in network it
// also repairs a bridge or nft table that somebody removed. Each change of the
// condition is logged, once.
func (n *Network) Status(ctx context.Context) Status {
	s := n.status(ctx)
	n.mu.Lock()
	changed := s != n.told
	n.told = s
	n.mu.Unlock()
	switch {
	case !changed:
	case s.Ready && s.Message == "":
		n.log.Info("network is ready", "obj", s.Mode)
	default:
		n.log.Warn("network condition", "obj", s.Mode, "ready", s.Ready, "reason", s.Reason, "err", s.Message)
	}
	return s
}

func (n *Network) status(ctx context.Context) Status {
	c, err := n.current()
	switch {
	case errors.Is(err, ErrNoConfig):
		return Status{Mode: ModeCNI, Reason: ReasonNoConfig,
			Message: fmt.Sprintf("%v: put a .conflist file there or set network.mode = \"builtin\"", err)}
	case err != nil:
		return Status{Mode: ModeCNI, Reason: ReasonInvalidConfig, Message: err.Error()}
	case c.mode == ModeBuiltin:
		if err := n.plugin.Verify(); err != nil {
			return Status{Mode: c.mode, Reason: ReasonBuiltin, Message: err.Error()}
		}
		return n.probe.of(string(c.list.Bytes), n.builtinStatus)
	}
	return n.probe.of(string(c.list.Bytes), func() Status { return n.cniStatus(ctx, c) })
}

func (n *Network) builtinStatus() Status {
	n.mu.Lock()
	subnets := n.subnets()
	n.mu.Unlock()
	if err := n.plugin.Usable(subnets); err != nil {
		return Status{Mode: ModeBuiltin, Reason: ReasonBuiltin, Message: err.Error()}
	}
	s := Status{Ready: true, Mode: ModeBuiltin, Reason: ReasonReady}
	ipv6 := slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
	drops, err := nat.ForeignDrops(n.cfg.Bridge, ipv6)
	if err != nil {
		n.log.Warn("look for foreign forward rules", "err", err)
		return s
	}
	var msgs []string
	fixes := map[string]bool{} // ufw has one for both families
	for _, d := range drops {
		if !fixes[d.Fix] {
			fixes[d.Fix] = true
			msgs = append(msgs, d.String())
		}
	}
	if len(msgs) > 0 {
		s.Reason, s.Message = ReasonForeignForward, strings.Join(msgs, "; ")
	}
	return s
}

// cniStatus checks that every plugin's binary is there and, from CNI 1.1 on,
// asks the plugins themselves.
func (n *Network) cniStatus(ctx context.Context, c choice) Status {
	e := &executor{}
	for _, p := range c.list.Plugins {
		if _, err := e.FindInPath(p.Network.Type, n.cfg.BinDirs); err != nil {
			return Status{Mode: ModeCNI, Reason: ReasonPlugin, Message: fmt.Sprintf("%s: %v", c.file, err)}
		}
	}
	err := n.libs[ModeCNI].GetStatusNetworkList(ctx, c.list)
	if err == nil {
		return Status{Ready: true, Mode: ModeCNI, Reason: ReasonReady}
	}
	s := Status{Mode: ModeCNI, Reason: ReasonPlugin, Message: fmt.Sprintf("%s: %v", c.file, err)}
	var p *PluginError
	if errors.As(err, &p) && p.Code == types.ErrLimitedConnectivity {
		s.Ready = true
	}
	return s
}
