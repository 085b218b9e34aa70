package bridge

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
)

// ifbName is the device that a pod's outgoing packets are led through, because
// the kernel queues only what leaves an interface. Named after the veth.
func ifbName(o ipam.Owner) string { return "crb" + strings.TrimPrefix(LinkName(o), linkPrefix) }

// shape limits what the lease says: what the pod receives by a token bucket on
// the host's end of its veth, what it sends by one on an ifb device that all it
// sends is redirected to. Both are on the host's side, where no capability in the
// pod reaches. It may be repeated.
func (p *Plugin) shape(l ipam.Lease) error {
	if l.Shape == (ipam.Shape{}) {
		return nil
	}
	veth, err := p.host.LinkByName(LinkName(l.Owner))
	if err != nil {
		return fmt.Errorf("find veth %s of pod %s: %w", LinkName(l.Owner), l.Pod, err)
	}
	if l.Shape.Ingress > 0 {
		if err := p.limit(veth, l.Shape.Ingress); err != nil {
			return fmt.Errorf("limit ingress of pod %s: %w", l.Pod, err)
		}
	}
	if l.Shape.Egress > 0 {
		if err := p.limitEgress(veth, l); err != nil {
			return fmt.Errorf("limit egress of pod %s: %w", l.Pod, err)
		}
	}
	return nil
}

func (p *Plugin) limitEgress(veth netlink.Link, l ipam.Lease) error {
	ifb, err := p.ifb(l.Owner, veth.Attrs().MTU)
	if err != nil {
		return err
	}
	if err := p.limit(ifb, l.Shape.Egress); err != nil {
		return err
	}
	// Made anew with its filter: a second filter would not replace the first.
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: veth.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	if err := p.host.QdiscDel(ingress); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("delete ingress queue of %s: %w", veth.Attrs().Name, err)
	}
	if err := p.host.QdiscAdd(ingress); err != nil {
		return fmt.Errorf("add ingress queue to %s (needs kernel module sch_ingress): %w", veth.Attrs().Name, err)
	}
	redirect := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: veth.Attrs().Index, Parent: ingress.Handle, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(ifb.Attrs().Index)},
	}
	if err := p.host.FilterAdd(redirect); err != nil {
		return fmt.Errorf("redirect %s to %s (needs kernel modules cls_u32 and act_mirred): %w", veth.Attrs().Name, ifb.Attrs().Name, err)
	}
	return nil
}

// ifb makes the owner's ifb device, or finds it.
func (p *Plugin) ifb(o ipam.Owner, mtu int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.NumTxQueues, attrs.NumRxQueues = ifbName(o), mtu, 1, 1
	if err := p.host.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("create %s (needs kernel module ifb): %w", attrs.Name, err)
	}
	link, err := p.host.LinkByName(attrs.Name)
	if err == nil {
		err = p.host.LinkSetAlias(link, aliasPrefix+o.String())
	}
	if err == nil {
		err = p.host.LinkSetUp(link)
	}
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", attrs.Name, err)
	}
	return link, nil
}

// Bounds of a token bucket. A segment as large as the bucket passes whole; GSO
// makes them up to 64 KiB.
const (
	leastBucket = 128 << 10
	bucketTime  = 0.02 // seconds of the rate that may come at once
	queueTime   = 0.05 // seconds that a packet may wait before others are dropped
)

// bucket gives the bytes that may pass at once and those that may wait. The
// bursts of the bandwidth capability are not asked: kubelet's annotations have
// none, and the 256 MiB that stand for "whatever you can" on the way to plugins
// would mean no limit for most of what pods send.
func bucket(bytesPerSecond float64) (burst, limit uint32) {
	part := func(seconds float64) float64 { return max(leastBucket, bytesPerSecond*seconds) }
	b := min(part(bucketTime), math.MaxInt32)
	return uint32(b), uint32(min(b+part(queueTime), math.MaxUint32))
}

// limit puts a token bucket filter (tc-tbf(8)) at the link's root, bits per
// second. The netlink package would give the burst in ticks, which overflow for
// slow rates; the kernel takes bytes too.
func (p *Plugin) limit(link netlink.Link, rate uint64) error {
	bytesPerSecond := max(rate/8, 1)
	burst, limit := bucket(float64(bytesPerSecond))
	opt := nl.TcTbfQopt{Limit: limit}
	opt.Rate.Rate = uint32(min(bytesPerSecond, math.MaxUint32))
	req := p.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(link.Attrs().Index), Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("tbf")))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, opt.Serialize())
	options.AddRtAttr(nl.TCA_TBF_BURST, nl.Uint32Attr(burst))
	if bytesPerSecond > math.MaxUint32 {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(bytesPerSecond))
	}
	req.AddData(options)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("add token bucket to %s (needs kernel module sch_tbf): %w", link.Attrs().Name, err)
	}
	return nil
}

// shaped says what is missing of a pod's limits, nil if nothing is.
func (p *Plugin) shaped(l ipam.Lease) error {
	has := func(name, kind string) error {
		link, err := p.host.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s of pod %s: %w", name, l.Pod, err)
		}
		list, err := p.host.QdiscList(link)
		if err != nil {
			return fmt.Errorf("list queues of %s: %w", name, err)
		}
		if !slices.ContainsFunc(list, func(q netlink.Qdisc) bool { return q.Type() == kind }) {
			return fmt.Errorf("%s of pod %s has no %s queue: its bandwidth is not limited", name, l.Pod, kind)
		}
		return nil
	}
	var errs []error
	if l.Shape.Ingress > 0 {
		errs = append(errs, has(LinkName(l.Owner), "tbf"))
	}
	if l.Shape.Egress > 0 {
		errs = append(errs, has(LinkName(l.Owner), "ingress"), has(ifbName(l.Owner), "tbf"))
	}
	return errors.Join(errs...)
}
