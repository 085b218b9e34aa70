package bridge

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

// healthy says what is missing of a pod's connection, nil if nothing is.
func (p *Plugin) healthy(l ipam.Lease, ns *os.File) error {
	host, err := p.host.LinkByName(LinkName(l.Owner))
	if err != nil {
		return fmt.Errorf("find veth %s of pod %s: %w", LinkName(l.Owner), l.Pod, err)
	}
	master, _ := p.attrs()
	if host.Attrs().MasterIndex != master || host.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("veth %s of pod %s is not up on bridge %s", LinkName(l.Owner), l.Pod, p.bridge)
	}
	pod, err := p.handleIn(ns, func() error { return nil })
	if err != nil {
		return err
	}
	defer pod.Close()
	eth, err := pod.LinkByName(l.IfName)
	if err != nil {
		return fmt.Errorf("find %s in pod %s: %w", l.IfName, l.Pod, err)
	}
	if eth.Attrs().ParentIndex != host.Attrs().Index || eth.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("%s of pod %s is not up or not the peer of %s", l.IfName, l.Pod, host.Attrs().Name)
	}
	return addressed(pod, eth, l)
}

func addressed(pod *netlink.Handle, eth netlink.Link, l ipam.Lease) error {
	have, err := pod.AddrList(eth, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of pod %s: %w", l.Pod, err)
	}
	routes, err := pod.RouteList(eth, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list routes of pod %s: %w", l.Pod, err)
	}
	for _, want := range l.Addrs {
		found, routed := false, false
		for _, a := range have {
			found = found || a.IPNet.String() == ipNet(want).String()
		}
		for _, r := range routes {
			routed = routed || r.Gw.Equal(ipam.Gateway(want).AsSlice())
		}
		if !found || !routed {
			return fmt.Errorf("%s of pod %s lacks address %s or its default route", l.IfName, l.Pod, want)
		}
	}
	return nil
}

func (p *Plugin) check(_ Conf, a Args) error {
	ns, err := openNetns(a.Netns)
	if err != nil {
		return types.NewError(types.ErrInvalidNetNS, err.Error(), "")
	}
	defer ns.Close()
	defer p.lock(a.owner())()
	l, ok := p.leases.Get(a.owner())
	if !ok {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("pod %s has no lease", a.ContainerID), "")
	}
	return errors.Join(p.healthy(l, ns), p.shaped(l))
}
