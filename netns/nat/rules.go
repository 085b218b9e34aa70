package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Names inside the table; docs/network.md shows them. Those of IPv6 end in 6.
const (
	chainGuard       = "guard"
	chainPrerouting  = "prerouting"
	chainOutput      = "output"
	chainHostPorts   = "hostports"
	chainPostrouting = "postrouting"

	setSubnets = "pod_cidrs"
	mapAny     = "hostport"    // protocol . port → pod . port
	mapAddr    = "hostport_ip" // address . protocol . port → pod . port
	setFlows   = "hostport_flow"
)

// reg1 is the first 16 bytes of the register file; word counts it in fours, as a
// concatenated key is laid out.
const reg1 = unix.NFT_REG_1

func word(n uint32) uint32 { return unix.NFT_REG32_00 + n }

// chunk bounds the elements of one message: a netlink attribute holds 64 KiB.
const chunk = 256

// family is what differs between IPv4 (RFC 791) and IPv6 (RFC 8200).
type family struct {
	proto    byte
	size     uint32 // of an address, bytes
	src, dst uint32 // where the addresses are in the header
	kind     nftables.SetDatatype
	suffix   string // of the names
}

var (
	v4 = family{proto: unix.NFPROTO_IPV4, size: 4, src: 12, dst: 16, kind: nftables.TypeIPAddr}
	v6 = family{proto: unix.NFPROTO_IPV6, size: 16, src: 8, dst: 24, kind: nftables.TypeIP6Addr, suffix: "6"}
)

func (f family) has(a netip.Addr) bool { return a.Is6() == (f.proto == unix.NFPROTO_IPV6) }

// families are those that a subnet belongs to. The objects of the other are left
// out: a kernel without IPv6 need not know them.
func (t *Table) families() []family {
	var out []family
	for _, f := range []family{v4, v6} {
		for _, s := range t.subnets {
			if f.has(s.Addr()) {
				out = append(out, f)
				break
			}
		}
	}
	return out
}

// layout is the set of objects of one family that the rules refer to.
type layout struct {
	family
	subnets, any, byAddr, byFlow *nftables.Set
}

func (t *Table) kernelTable() *nftables.Table {
	return &nftables.Table{Name: t.bridge, Family: nftables.TableFamilyINet}
}

func (t *Table) layout(f family) layout {
	table := t.kernelTable()
	proto, port, ip := nftables.TypeInetProto, nftables.TypeInetService, f.kind
	target := nftables.MustConcatSetType(ip, port)
	return layout{
		family:  f,
		subnets: &nftables.Set{Table: table, Name: setSubnets + f.suffix, KeyType: ip, Interval: true},
		any: &nftables.Set{Table: table, Name: mapAny + f.suffix, IsMap: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(proto, port), DataType: target},
		byAddr: &nftables.Set{Table: table, Name: mapAddr + f.suffix, IsMap: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(ip, proto, port), DataType: target},
		byFlow: &nftables.Set{Table: table, Name: setFlows + f.suffix, Concatenation: true,
			KeyType: nftables.MustConcatSetType(proto, port, ip, port)},
	}
}

// elements are what a list of mappings puts in the maps and the set of a family.
type elements struct{ any, byAddr, byFlow []nftables.SetElement }

func elementsOf(f family, ms []Mapping) elements {
	var e elements
	flows := map[string]bool{}
	for _, m := range ms {
		if !f.has(m.Pod) {
			continue
		}
		proto, pod := padded(protocols[m.Protocol]), m.Pod.AsSlice()
		hostPort, podPort := padded16(m.HostPort), padded16(m.PodPort)
		val := concat(pod, podPort)
		if m.HostIP.IsValid() {
			e.byAddr = append(e.byAddr, nftables.SetElement{Key: concat(m.HostIP.AsSlice(), proto, hostPort), Val: val})
		} else {
			e.any = append(e.any, nftables.SetElement{Key: concat(proto, hostPort), Val: val})
		}
		flow := concat(proto, hostPort, pod, podPort)
		if !flows[string(flow)] {
			flows[string(flow)] = true
			e.byFlow = append(e.byFlow, nftables.SetElement{Key: flow})
		}
	}
	return e
}

func padded(b byte) []byte     { return []byte{b, 0, 0, 0} }
func padded16(p uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, p), 0, 0) }

func concat(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// update adds or removes the elements of one owner in one transaction.
func (t *Table) update(ms []Mapping, add bool) error {
	c, err := t.open()
	if err != nil {
		return err
	}
	change := c.SetAddElements
	if !add {
		change = c.SetDeleteElements
	}
	for _, f := range t.families() {
		if err := each(t.layout(f), elementsOf(f, ms), change); err != nil {
			t.close()
			return fmt.Errorf("change nft table inet %s: %w", t.bridge, err)
		}
	}
	if err := c.Flush(); err != nil {
		t.close()
		return fmt.Errorf("change nft table inet %s: %w", t.bridge, err)
	}
	return nil
}

func each(l layout, e elements, change func(*nftables.Set, []nftables.SetElement) error) error {
	for _, p := range []struct {
		set  *nftables.Set
		list []nftables.SetElement
	}{{l.any, e.any}, {l.byAddr, e.byAddr}, {l.byFlow, e.byFlow}} {
		for len(p.list) > 0 {
			n := min(len(p.list), chunk)
			if err := change(p.set, p.list[:n]); err != nil {
				return err
			}
			p.list = p.list[n:]
		}
	}
	return nil
}

// rebuild makes the table anew: add (so that the delete finds one), delete, add,
// all in one transaction, which the kernel applies as a whole or not at all.
func (t *Table) rebuild() (err error) {
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	c, err := t.open()
	if err != nil {
		return err
	}
	table := t.kernelTable()
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	var all []Mapping
	for _, ms := range t.owners {
		all = append(all, ms...)
	}
	var layouts []layout
	for _, f := range t.families() {
		l := t.layout(f)
		if err := t.fill(c, l, all); err != nil {
			return err
		}
		layouts = append(layouts, l)
	}
	t.addChains(c, layouts)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("replace nft table inet %s: %w", t.bridge, err)
	}
	return nil
}

// fill declares the sets and maps of one family with their content.
func (t *Table) fill(c *nftables.Conn, l layout, all []Mapping) error {
	for _, s := range []*nftables.Set{l.subnets, l.any, l.byAddr, l.byFlow} {
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("declare nft set %s: %w", s.Name, err)
		}
	}
	if err := c.SetAddElements(l.subnets, t.subnetElements(l.family)); err != nil {
		return fmt.Errorf("fill nft set %s: %w", l.subnets.Name, err)
	}
	if err := each(l, elementsOf(l.family, all), c.SetAddElements); err != nil {
		return fmt.Errorf("fill nft table inet %s: %w", t.bridge, err)
	}
	return nil
}

// subnetElements are half-open intervals, each a start and an end element.
// Overlapping subnets are swallowed by the larger one: the kernel refuses both.
func (t *Table) subnetElements(f family) []nftables.SetElement {
	var out []nftables.SetElement
	for i, p := range t.subnets {
		if !f.has(p.Addr()) || swallowed(t.subnets, i) {
			continue
		}
		out = append(out, nftables.SetElement{Key: p.Masked().Addr().AsSlice()})
		if end := last(p).Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func swallowed(all []netip.Prefix, i int) bool {
	for j, o := range all {
		if j != i && o.Overlaps(all[i]) && (o.Bits() < all[i].Bits() || (o.Bits() == all[i].Bits() && j < i)) {
			return true
		}
	}
	return false
}
