package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

const (
	// aliasPrefix begins the ifalias of every interface on the host's side; the owner follows.
	aliasPrefix = "cri-mini:"
	linkPrefix  = "cri"
	// doomed is the interface group in which links are gathered to be deleted in
	// one go ("crim"): twenty at once take as long as one.
	doomed = 0x6372696d
)

// LinkName is the host side's name: derived from the owner, so that it can be
// found without any record; 15 characters, IFNAMSIZ allows no more.
func LinkName(o ipam.Owner) string {
	sum := sha256.Sum256([]byte(o.String()))
	return linkPrefix + hex.EncodeToString(sum[:6])
}

// podMAC is 0a:58 and the IPv4 address, or the end of the IPv6 one: who leases the
// address next has the same one, and no neighbour table goes stale.
func podMAC(l ipam.Lease) net.HardwareAddr {
	var b []byte
	for _, a := range l.Addrs {
		if b == nil || a.Addr().Is4() {
			b = a.Addr().AsSlice()
		}
	}
	return append(net.HardwareAddr{0x0a, 0x58}, b[len(b)-4:]...)
}

func openNetns(path string) (*os.File, error) {
	if path == "" {
		return nil, errors.New("no network namespace given")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, fmt.Errorf("open network namespace: %s is not one", path)
	}
	return f, nil
}

// link connects the pod. With again set, what an earlier ADD left is used if it
// is whole and removed if not.
func (p *Plugin) link(l ipam.Lease, ns *os.File, again bool) error {
	if again && p.healthy(l, ns) == nil {
		return nil
	}
	err := p.createVeth(l, ns)
	if errors.Is(err, unix.EEXIST) {
		// Left by an ADD that was cut off, or the pod's own namespace has an
		// interface of that name already; only the first can be helped.
		if err2 := p.deleteLink(LinkName(l.Owner)); err2 != nil {
			return errors.Join(fmt.Errorf("create veth of pod %s: %w", l.Pod, err), err2)
		}
		err = p.createVeth(l, ns)
	}
	if errors.Is(err, unix.EXFULL) {
		return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("create veth of pod %s: bridge %s has no port left, the kernel allows 1023", l.Pod, p.bridge), "remove pods")
	}
	if err != nil {
		return fmt.Errorf("create veth of pod %s: %w", l.Pod, err)
	}
	if err := p.finishPort(l.Owner); err != nil {
		return err
	}
	return p.inside(l, ns)
}

// settle waits until frames flow. The carrier of both ends comes up with eth0,
// but queues are opened and the bridge port is set forwarding by deferred work
// (linkwatch); what is sent before is dropped, and the first ARP request or SYN
// is repeated only a second later. Since Linux 6.8 asking for the link does the
// work at once; before, it takes a millisecond or a few.
func (p *Plugin) settle(pod *netlink.Handle, l ipam.Lease) {
	end := time.Now().Add(100 * time.Millisecond)
	awaitUp(pod, l.IfName, end)
	awaitUp(p.host, LinkName(l.Owner), end)
	awaitUp(p.host, p.bridge, end)
	for _, a := range l.Addrs {
		awaitLocal(pod, a.Addr(), end)
	}
}

func awaitUp(h *netlink.Handle, name string, end time.Time) {
	for {
		link, err := h.LinkByName(name)
		if err != nil || link.Attrs().OperState == netlink.OperUp || time.Now().After(end) {
			return
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// createVeth sends the one message that makes both ends: the host's with its
// master and up, the pod's in its namespace with its name and address. (The
// netlink package's own LinkAdd takes three messages and as many turns at the
// RTNL lock.) IFF_UP on the peer in the same message is refused by the kernel
// with ENOTCONN: its other end is not there yet. One queue per direction: veth
// has no queueing discipline to share out, and by default the kernel makes, with
// their sysfs objects, as many as there are processors.
func (p *Plugin) createVeth(l ipam.Lease, ns *os.File) error {
	master, mtu := p.attrs()
	req := p.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(LinkName(l.Owner))))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(master))))
	one := nl.Uint32Attr(1)
	req.AddData(nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, one))
	req.AddData(nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, one))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(l.IfName))
	peer.AddRtAttr(unix.IFLA_ADDRESS, podMAC(l))
	peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))
	peer.AddRtAttr(unix.IFLA_NUM_TX_QUEUES, one)
	peer.AddRtAttr(unix.IFLA_NUM_RX_QUEUES, one)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns.Fd())))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// request begins a message that the netlink package has no call for.
func (p *Plugin) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: p.raw}
	return req
}

// finishPort sends what the kernel takes only for a port that exists: hairpin
// mode, which lets the bridge send a frame back to the port it came from (a pod
// that calls its own host port or service), and the alias, which tells `ip link`
// readers and gc whose it is.
func (p *Plugin) finishPort(o ipam.Owner) error {
	req := p.request(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(LinkName(o))))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(aliasPrefix+o.String())))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(nl.IFLA_BRPORT_MODE, []byte{1})
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("set hairpin mode of %s: %w", LinkName(o), err)
	}
	return nil
}
