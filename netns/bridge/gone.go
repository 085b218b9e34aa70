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
// passes first (something else holds the namespace), it deletes the veth.
func (p *Plugin) WaitGone(ctx context.Context, o ipam.Owner, limit time.Duration) error {
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
// one message for all, the host-side veths that no lease claims.
func (p *Plugin) gc(network string, keep map[ipam.Owner]bool) error {
	var errs []error
	for _, l := range p.leases.List() {
		if l.Network == network && !keep[l.Owner] {
			p.log.Info("release stale lease", "pod", l.Pod, "obj", l.Addrs)
			errs = append(errs, p.del(Args{ContainerID: l.Pod, IfName: l.IfName}))
		}
	}
	br, err := p.host.LinkByName(p.bridge)
	if err != nil {
		return errors.Join(errs...) // no bridge, no ports
	}
	links, err := p.host.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return errors.Join(append(errs, fmt.Errorf("list interfaces: %w", err))...)
	}
	n := 0
	for _, l := range links {
		pod, ifName, ok := strings.Cut(strings.TrimPrefix(l.Attrs().Alias, aliasPrefix), "@")
		if !ok || !strings.HasPrefix(l.Attrs().Alias, aliasPrefix) || l.Attrs().MasterIndex != br.Attrs().Index {
			continue
		}
		o := ipam.Owner{Pod: pod, IfName: ifName}
		if _, leased := p.leases.Get(o); leased || l.Attrs().Name != LinkName(o) {
			continue
		}
		if err := p.host.LinkSetGroup(l, doomed); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("mark interface %s: %w", l.Attrs().Name, err))
			continue
		}
		n++
	}
	if n > 0 {
		errs = append(errs, p.deleteGroup())
	}
	return errors.Join(errs...)
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
