package netns

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// GC releases everything that belongs to none of the attachments in keep: leases,
// host ports and veths of the built-in network, and whatever the plugins of the
// CNI networks hold: DEL for what libcni's cache knows of, with the conflist it was
// attached by, and the GC verb, from CNI 1.1 on, to those in keep and today's.
// For daemon start, before serving.
func (n *Network) GC(ctx context.Context, keep []*Attachment) error {
	type network struct {
		mode string
		list *libcni.NetworkConfigList
		args libcni.GCArgs
	}
	networks := map[string]*network{}
	n.mu.Lock()
	own, err := n.builtinChoice(n.subnets())
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("collect network garbage: %w", err)
	}
	networks[builtinName] = &network{mode: ModeBuiltin, list: own.list}
	if c, err := n.current(); err == nil && c.mode == ModeCNI {
		networks[c.list.Name] = &network{mode: ModeCNI, list: c.list}
	}
	errs := n.delForgotten(ctx, keep)
	for _, att := range keep {
		w := networks[att.Network]
		if w == nil {
			c, err := n.open(att)
			if err != nil {
				errs = append(errs, fmt.Errorf("collect network garbage: pod %s: %w", att.PodID, err))
				continue
			}
			w = &network{mode: att.Mode, list: c.list}
			networks[att.Network] = w
		}
		w.args.ValidAttachments = append(w.args.ValidAttachments, types.GCAttachment{ContainerID: att.PodID, IfName: att.IfName})
	}
	for name, w := range networks {
		if err := n.libs[w.mode].GCNetworkList(ctx, w.list, &w.args); err != nil {
			errs = append(errs, fmt.Errorf("collect garbage of network %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// delForgotten undoes the attachments in libcni's caches that are not in keep.
// libcni's own GC would do it with today's conflist, and with the path of a
// namespace that is gone, over which plugins stumble.
func (n *Network) delForgotten(ctx context.Context, keep []*Attachment) (errs []error) {
	valid := map[[2]string]bool{}
	for _, att := range keep {
		valid[[2]string{att.PodID, att.IfName}] = true
	}
	for mode, lib := range n.libs {
		cached, err := lib.GetCachedAttachments("")
		if err != nil {
			errs = append(errs, fmt.Errorf("list cached attachments of mode %s: %w", mode, err))
		}
		for _, a := range cached {
			if valid[[2]string{a.ContainerID, a.IfName}] {
				continue
			}
			list, err := libcni.NetworkConfFromBytes(a.Config)
			if err != nil {
				errs = append(errs, fmt.Errorf("read cached conflist of pod %s: %w", a.ContainerID, err))
				continue
			}
			rt := &libcni.RuntimeConf{ContainerID: a.ContainerID, NetNS: a.NetNS, IfName: a.IfName, Args: a.CniArgs, CapabilityArgs: a.CapabilityArgs}
			if !isNetns(rt.NetNS) {
				rt.NetNS = ""
			}
			n.log.Info("detach forgotten pod", "pod", a.ContainerID, "obj", a.Network)
			if err := lib.DelNetworkList(ctx, list, rt); err != nil {
				errs = append(errs, fmt.Errorf("detach forgotten pod %s, network %q: %w", a.ContainerID, a.Network, err))
			}
		}
	}
	return errs
}
