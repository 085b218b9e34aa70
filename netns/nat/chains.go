package nat

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// addChains adds the rules, which refer to the sets of each layout.
func (t *Table) addChains(c *nftables.Conn, layouts []layout) {
	table := t.kernelTable()
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: prio})
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: flat(parts)})
	}
	hostports := c.AddChain(&nftables.Chain{Name: chainHostPorts, Table: table})
	guard := base(chainGuard, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	pre := base(chainPrerouting, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := base(chainOutput, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	post := base(chainPostrouting, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	jump := []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chainHostPorts}}
	masquerade := []expr.Any{&expr.Masq{}}

	// route_localnet on the bridge takes away the kernel's own martian check, so
	// a pod could reach what listens on the host's 127.0.0.1, or speak as it; and
	// where somebody set it for all interfaces, so could every neighbour of the
	// node (CVE-2020-8558). Before conntrack, so that no reply of ours is meant:
	// those carry the bridge's address here. IPv6 needs no such rule: the kernel
	// drops ::1 from a wire, whatever the settings.
	notLo := ifName(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo")
	rule(guard, notLo, loopback(v4, v4.dst), drop)
	rule(guard, notLo, loopback(v4, v4.src), drop)

	rule(pre, localDestination(), jump)
	rule(out, localDestination(), jump)
	toBridge := ifName(expr.MetaKeyOIFNAME, expr.CmpOpEq, t.bridge)
	fromBridge := ifName(expr.MetaKeyOIFNAME, expr.CmpOpNeq, t.bridge)
	for _, l := range layouts {
		rule(hostports, dnat(l.family, l.byAddr, true))
		rule(hostports, dnat(l.family, l.any, false))
		// A client on the same bridge (or the pod itself: hairpin) would get the
		// answer straight over the bridge, past the translation back.
		rule(post, toBridge, l.inSubnets(l.src, false), l.ourFlow(), masquerade)
		// 127.0.0.1 and ::1 as a source mean nothing on the pod's side.
		rule(post, toBridge, loopback(l.family, l.src), masquerade)
		rule(post, l.inSubnets(l.src, false), l.inSubnets(l.dst, true), l.notMulticast(), fromBridge, masquerade)
	}
}

func flat(parts [][]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func (f family) match() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{f.proto}},
	}
}

func ifName(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: op, Register: reg1, Data: data}}
}

func network(offset, size, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
}

func dstPort(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// loopback matches 127.0.0.0/8 or ::1 at an offset of the header.
func loopback(f family, offset uint32) []expr.Any {
	want := []byte{127}
	if f.proto == unix.NFPROTO_IPV6 {
		want = make([]byte, 16)
		want[15] = 1
	}
	return append(f.match(), network(offset, uint32(len(want)), reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: want})
}

// notMulticast: the destination is outside 224.0.0.0/4 or ff00::/8.
func (f family) notMulticast() []expr.Any {
	mask, want := byte(0xf0), byte(0xe0)
	if f.proto == unix.NFPROTO_IPV6 {
		mask, want = 0xff, 0xff
	}
	return []expr.Any{
		network(f.dst, 1, reg1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{want}},
	}
}

func (l layout) inSubnets(offset uint32, invert bool) []expr.Any {
	return append(l.match(), network(offset, l.size, reg1),
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
func dnat(f family, m *nftables.Set, byAddr bool) []expr.Any {
	key, words := f.match(), f.size/4
	at := uint32(0)
	if byAddr {
		key, at = append(key, network(f.dst, f.size, reg1)), words
	}
	return append(key,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word(at)}, dstPort(word(at+1)),
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: reg1, RegProtoMin: word(words), Specified: true})
}

// ourFlow matches a connection that a host port of ours translated: its first
// port and its present target are one of the mappings. kube-proxy's flows to the
// same pod keep their source address.
func (l layout) ourFlow() []expr.Any {
	translated := binaryutil.NativeEndian.PutUint32(1 << 5) // IPS_DST_NAT
	return append(l.match(),
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: translated, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: word(1), Direction: 0},
		network(l.dst, l.size, word(2)),
		dstPort(word(2+l.size/4)),
		&expr.Lookup{SourceRegister: reg1, SetName: l.byFlow.Name, SetID: l.byFlow.ID})
}
