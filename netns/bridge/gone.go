package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

// deleteLink deletes one interface; its absence is no error. It costs 20 ms
// under the RTNL lock: for repairs only.
func (p *Plugin) deleteLink(name string) error {
	l, err := p.host.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = p.host.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// WaitGone returns when the owner's host-side veth is gone, as it is a few
// milliseconds after the last reference to the pod's network namespace. If limit
// passes first (something else holds the namespace), it deletes the veth. Then it
// deletes what DEL has doomed.
func (p *Plugin) WaitGone(ctx context.Context, o ipam.Owner, limit time.Duration) error {
	if err := p.waitGone(ctx, o, limit); err != nil {
		return err
	}
	return p.sweep()
}

func (p *Plugin) waitGone(ctx context.Context, o ipam.Owner, limit time.Duration) error {
	name := LinkName(o)
	there := func() bool {
		_, err := p.host.LinkByName(name)
		return !errors.As(err, new(netlink.LinkNotFoundError))
	}
	if !there() {
		return nil
	}
	news, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	subscribed := netlink.LinkSubscribe(news, done) == nil
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	// The tick is for what the subscription can miss: events before it, and those
	// that overran its buffer.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	if !subscribed {
		news = nil
	}
	for there() {
	wait:
		for {
			select {
			case u, ok := <-news:
				if !ok {
					news = nil
					break wait
				}
				if u.Header.Type == unix.RTM_DELLINK && u.Link.Attrs().Name == name {
					return nil
				}
			case <-tick.C:
				break wait
			case <-timeout.C:
				p.log.Warn("network namespace outlived its pod; deleting the veth", "pod", o.Pod, "obj", name)
				return p.deleteLink(name)
			case <-ctx.Done():
				return fmt.Errorf("wait for interface %s to go: %w", name, ctx.Err())
			}
		}
	}
	return nil
}

// gc releases the network's leases whose owner is not in keep, and deletes, in
// one message for all, the interfaces on the host's side that no lease claims.
func (p *Plugin) gc(network string, keep map[ipam.Owner]bool) error {
	var errs []error
	for _, l := range p.leases.List() {
		if l.Network == network && !keep[l.Owner] {
			p.log.Info("release stale lease", "pod", l.Pod, "obj", l.Addrs)
			errs = append(errs, p.del(Args{ContainerID: l.Pod, IfName: l.IfName}))
		}
	}
	links, err := p.host.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return errors.Join(append(errs, fmt.Errorf("list interfaces: %w", err))...)
	}
	master := 0
	if br, err := p.host.LinkByName(p.bridge); err == nil {
		master = br.Attrs().Index
	}
	for _, l := range links {
		if p.stale(l, master) {
			errs = append(errs, p.doomLink(l))
		}
	}
	return errors.Join(append(errs, p.sweep())...)
}

// stale: one of our veths or ifb devices, without a lease. Another daemon's veths
// are on another bridge; its ifb devices are told by the veth with that alias.
func (p *Plugin) stale(l netlink.Link, bridge int) bool {
	pod, ifName, ok := strings.Cut(strings.TrimPrefix(l.Attrs().Alias, aliasPrefix), "@")
	if !ok || !strings.HasPrefix(l.Attrs().Alias, aliasPrefix) {
		return false
	}
	o := ipam.Owner{Pod: pod, IfName: ifName}
	if _, leased := p.leases.Get(o); leased {
		return false
	}
	switch l.Attrs().Name {
	case LinkName(o):
		return l.Attrs().MasterIndex == bridge && bridge != 0
	case ifbName(o):
		veth, err := p.host.LinkByName(LinkName(o))
		return err != nil || veth.Attrs().MasterIndex == bridge
	}
	return false
}

// doom puts a link into the group that sweep deletes; its absence is no error.
func (p *Plugin) doom(name string) error {
	l, err := p.host.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	return p.doomLink(l)
}

func (p *Plugin) doomLink(l netlink.Link) error {
	err := p.host.LinkSetGroup(l, doomed)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark interface %s: %w", l.Attrs().Name, err)
	}
	p.doomedMu.Lock()
	defer p.doomedMu.Unlock()
	p.doomed++
	return nil
}

// sweep deletes all that is doomed in one message; what is doomed while another
// sweep is at it waits for the next, so many pods pay for one or two.
func (p *Plugin) sweep() error {
	p.doomedMu.Lock()
	n := p.doomed
	p.doomed = 0
	p.doomedMu.Unlock()
	if n == 0 {
		return nil
	}
	return p.deleteGroup()
}

func (p *Plugin) deleteGroup() error {
	req := p.request(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(doomed)))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface group %#x: %w", doomed, err)
	}
	return nil
}
