package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names inside the table; docs/network.md shows them.
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

// Registers: 1 is the first 16 bytes of the register file, 9 to 11 are its
// second to fourth word; a concatenated key is loaded word by word.
const (
	reg1 = unix.NFT_REG_1
	reg9 = unix.NFT_REG32_01
	rega = unix.NFT_REG32_02
	regb = unix.NFT_REG32_03
)

// chunk bounds the elements of one message: a netlink attribute holds 64 KiB.
const chunk = 256

// layout is the set of objects that the rules refer to.
type layout struct {
	table                        *nftables.Table
	subnets, any, byAddr, byFlow *nftables.Set
}

func (t *Table) layout() layout {
	table := &nftables.Table{Name: t.bridge, Family: nftables.TableFamilyINet}
	proto, port, ip := nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeIPAddr
	target := nftables.MustConcatSetType(ip, port)
	return layout{
		table:   table,
		subnets: &nftables.Set{Table: table, Name: setSubnets, KeyType: ip, Interval: true},
		any: &nftables.Set{Table: table, Name: mapAny, IsMap: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(proto, port), DataType: target},
		byAddr: &nftables.Set{Table: table, Name: mapAddr, IsMap: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(ip, proto, port), DataType: target},
		byFlow: &nftables.Set{Table: table, Name: setFlows, Concatenation: true,
			KeyType: nftables.MustConcatSetType(proto, port, ip, port)},
	}
}

// elements are what a list of mappings puts in the maps and the set.
type elements struct{ any, byAddr, byFlow []nftables.SetElement }

func elementsOf(ms []Mapping) elements {
	var e elements
	flows := map[string]bool{}
	for _, m := range ms {
		proto, pod := word(protocols[m.Protocol]), m.Pod.AsSlice()
		hostPort, podPort := word16(m.HostPort), word16(m.PodPort)
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

func word(b byte) []byte     { return []byte{b, 0, 0, 0} }
func word16(p uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, p), 0, 0) }

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
	l, e := t.layout(), elementsOf(ms)
	change := c.SetAddElements
	if !add {
		change = c.SetDeleteElements
	}
	if err := each(l, e, change); err != nil {
		t.close()
		return fmt.Errorf("change nft table inet %s: %w", t.bridge, err)
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
	l := t.layout()
	c.AddTable(l.table)
	c.DelTable(l.table)
	c.AddTable(l.table)
	for _, s := range []*nftables.Set{l.subnets, l.any, l.byAddr, l.byFlow} {
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("declare nft set %s: %w", s.Name, err)
		}
	}
	if els := t.subnetElements(); len(els) > 0 {
		if err := c.SetAddElements(l.subnets, els); err != nil {
			return fmt.Errorf("fill nft set %s: %w", setSubnets, err)
		}
	}
	var all []Mapping
	for _, ms := range t.owners {
		all = append(all, ms...)
	}
	if err := each(l, elementsOf(all), c.SetAddElements); err != nil {
		return fmt.Errorf("fill nft table inet %s: %w", t.bridge, err)
	}
	t.addChains(c, l)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("replace nft table inet %s: %w", t.bridge, err)
	}
	return nil
}

// subnetElements are half-open intervals, each a start and an end element.
// Overlapping subnets are swallowed by the larger one: the kernel refuses both.
func (t *Table) subnetElements() []nftables.SetElement {
	var out []nftables.SetElement
	for i, p := range t.subnets {
		if !p.Addr().Is4() || swallowed(t.subnets, i) {
			continue
		}
		b := p.Masked().Addr().As4()
		end := uint64(binary.BigEndian.Uint32(b[:])) + 1<<(32-p.Bits())
		out = append(out, nftables.SetElement{Key: b[:]})
		if end < 1<<32 {
			out = append(out, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, uint32(end)), IntervalEnd: true})
		}
	}
	return out
}

func swallowed(all []netip.Prefix, i int) bool {
	for j, o := range all {
		if j != i && o.Overlaps(all[i]) && (o.Bits() < all[i].Bits() || (o.Bits() == all[i].Bits() && j < i)) {
			return true
		}
	}
	return false
}

func (t *Table) addChains(c *nftables.Conn, l layout) {
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: l.table, Type: kind, Hooknum: hook, Priority: prio})
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: l.table, Chain: ch, Exprs: all})
	}
	hostports := c.AddChain(&nftables.Chain{Name: chainHostPorts, Table: l.table})
	guard := base(chainGuard, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	pre := base(chainPrerouting, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := base(chainOutput, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	post := base(chainPostrouting, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	masquerade := []expr.Any{&expr.Masq{}}

	// route_localnet on the bridge takes away the kernel's own martian check, so
	// a pod could reach what listens on the host's 127.0.0.1, or speak as it
	// (CVE-2020-8558 is this hole in kube-proxy). Before conntrack, so that no
	// reply of ours is meant: those carry the bridge's address here.
	rule(guard, ifName(expr.MetaKeyIIFNAME, expr.CmpOpEq, t.bridge), loopback(dstOffset), drop)
	rule(guard, ifName(expr.MetaKeyIIFNAME, expr.CmpOpEq, t.bridge), loopback(srcOffset), drop)

	rule(hostports, dnat(l.byAddr, true))
	rule(hostports, dnat(l.any, false))
	jump := []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chainHostPorts}}
	rule(pre, localDestination(), jump)
	rule(out, localDestination(), jump)

	// A client on the same bridge (or the pod itself: hairpin) would get the
	// answer straight over the bridge, past the translation back.
	rule(post, ifName(expr.MetaKeyOIFNAME, expr.CmpOpEq, t.bridge), inSubnets(l, srcOffset, false), ourFlow(l), masquerade)
	// 127.0.0.1 as a source means nothing on the pod's side.
	rule(post, ifName(expr.MetaKeyOIFNAME, expr.CmpOpEq, t.bridge), loopback(srcOffset), masquerade)
	rule(post, inSubnets(l, srcOffset, false), inSubnets(l, dstOffset, true), notMulticast(),
		ifName(expr.MetaKeyOIFNAME, expr.CmpOpNeq, t.bridge), masquerade)
}

// Offsets of the addresses in the IPv4 header (RFC 791).
const (
	srcOffset = 12
	dstOffset = 16
)

func ipv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

func ifName(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: op, Register: reg1, Data: data}}
}

func addr(offset, length, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func loopback(offset uint32) []expr.Any {
	return append(ipv4(), addr(offset, 1, reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{127}})
}

func notMulticast() []expr.Any {
	return []expr.Any{
		addr(dstOffset, 4, reg1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: []byte{0xf0, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{224, 0, 0, 0}},
	}
}

func inSubnets(l layout, offset uint32, invert bool) []expr.Any {
	return append(ipv4(), addr(offset, 4, reg1),
		&expr.Lookup{SourceRegister: reg1, SetName: l.subnets.Name, SetID: l.subnets.ID, Invert: invert})
}

func localDestination() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// dnat looks (address .) protocol . port up and translates to what it finds; a
// miss ends the rule.
func dnat(m *nftables.Set, byAddr bool) []expr.Any {
	port := func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	}
	out := ipv4()
	if byAddr {
		out = append(out, addr(dstOffset, 4, reg1), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg9}, port(rega))
	} else {
		out = append(out, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, port(reg9))
	}
	return append(out,
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg9, Specified: true})
}

// ourFlow matches a connection that a host port of ours translated: its first
// port and its present target are one of the mappings. kube-proxy's flows to the
// same pod keep their source address.
func ourFlow(l layout) []expr.Any {
	dnat := binaryutil.NativeEndian.PutUint32(1 << 5) // IPS_DST_NAT
	return append(ipv4(),
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: dnat, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: reg9, Direction: 0},
		addr(dstOffset, 4, rega),
		&expr.Payload{DestRegister: regb, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg1, SetName: l.byFlow.Name, SetID: l.byFlow.ID})
}
