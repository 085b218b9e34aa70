package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

// handleIn opens a netlink socket in the namespace. A socket stays in the
// namespace it was made in, so only its making needs a visit: by a goroutine of
// its own, whose thread dies with it should the way back be barred. What else the
// visit is good for is done first; /proc/sys/net shows the visitor's namespace.
func (p *Plugin) handleIn(ns *os.File, first func() error) (*netlink.Handle, error) {
	type answer struct {
		h   *netlink.Handle
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			ch <- answer{err: fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)}
			return
		}
		a := answer{err: first()}
		if a.err == nil {
			a.h, a.err = netlink.NewHandle(unix.NETLINK_ROUTE)
		}
		if back := unix.Setns(int(p.hostNS.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		ch <- a
	}()
	a := <-ch
	return a.h, a.err
}

// deafen is for a thread in the pod's namespace. A pod takes its address from us
// alone: with accept_ra, which is on by default, any pod of the node could make
// itself the others' IPv6 router (CVE-2020-10749).
func (p *Plugin) deafen(l ipam.Lease) error {
	if err := writeSysctl("ipv6/conf/"+l.IfName+"/accept_ra", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("pod accepts router advertisements of its neighbours", "pod", l.Pod, "err", err)
	}
	return nil
}

// inside configures the pod's side. Where net.core.devconf_inherit_init_net
// spreads a host's disable_ipv6, the kernel refuses the address at first.
func (p *Plugin) inside(l ipam.Lease, ns *os.File) error {
	pod, err := p.handleIn(ns, func() error { return p.deafen(l) })
	if err != nil {
		return err
	}
	defer pod.Close()
	err = configure(pod, l)
	if errors.Is(err, unix.EACCES) {
		again, err2 := p.handleIn(ns, func() error { return writeSysctl("ipv6/conf/"+l.IfName+"/disable_ipv6", "0") })
		if err2 != nil {
			return errors.Join(err, err2)
		}
		defer again.Close()
		err = configure(again, l)
	}
	if err != nil {
		return err
	}
	p.settle(pod, l)
	return nil
}

// configure sets the pod's side: lo up, address, interface up, default route.
func configure(pod *netlink.Handle, l ipam.Lease) error {
	lo := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "lo"}} // always 1 in a namespace
	if err := pod.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up in pod %s: %w", l.Pod, err)
	}
	eth, err := pod.LinkByName(l.IfName)
	if err != nil {
		return fmt.Errorf("find %s in pod %s: %w", l.IfName, l.Pod, err)
	}
	for _, a := range l.Addrs {
		if err := pod.AddrReplace(eth, address(a)); err != nil {
			return fmt.Errorf("add address %s to %s of pod %s: %w", a, l.IfName, l.Pod, err)
		}
	}
	if err := pod.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set %s up in pod %s: %w", l.IfName, l.Pod, err)
	}
	for _, a := range l.Addrs {
		r := &netlink.Route{LinkIndex: eth.Attrs().Index, Dst: ipNet(defaultRoute(a)), Gw: ipam.Gateway(a).AsSlice()}
		if err := pod.RouteReplace(r); err != nil {
			return fmt.Errorf("add default route in pod %s: %w", l.Pod, err)
		}
	}
	return nil
}

// address is one to be set. Nobody else can have it, so IPv6 need not spend a
// second on duplicate address detection, in which it could not be used.
func address(a netip.Prefix) *netlink.Addr {
	out := &netlink.Addr{IPNet: ipNet(a)}
	if a.Addr().Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

// awaitLocal waits until the kernel takes packets for an IPv6 address that was
// set: the route to itself and the multicast group in which neighbours ask for it
// are made by deferred work, in well under a millisecond on a quiet machine.
func awaitLocal(h *netlink.Handle, a netip.Addr, end time.Time) {
	for a.Is6() && time.Now().Before(end) {
		routes, err := h.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		time.Sleep(200 * time.Microsecond)
	}
}
