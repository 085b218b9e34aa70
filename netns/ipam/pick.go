package ipam

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// pickAll takes one address of each subnet. The smallest subnet, which runs out
// and begins anew the soonest, is served first; the others give the address with
// the same number if they can: who gets 10.88.0.5 again gets fd…::5 again, and
// with them the MAC address that its neighbours remember.
func (s *Store) pickAll(subnets []netip.Prefix) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, len(subnets))
	order := make([]int, len(subnets))
	for i := range order {
		order[i] = i
	}
	hostBits := func(i int) int { return subnets[i].Addr().BitLen() - subnets[i].Bits() }
	slices.SortStableFunc(order, func(a, b int) int { return hostBits(a) - hostBits(b) })
	var number uint64
	for _, i := range order {
		subnet := subnets[i]
		addr := nth(subnet, number)
		if !addr.IsValid() || !s.free(addr) {
			var err error
			if addr, err = s.pick(subnet); err != nil {
				return nil, err
			}
		}
		if number == 0 {
			number = low(addr) - low(subnet.Masked().Addr())
		}
		out[i] = netip.PrefixFrom(addr, subnet.Bits())
	}
	return out, nil
}

// low is the last 8 bytes of an address, or all of an IPv4 one.
func low(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// nth is the address with that number in an IPv6 subnet; zero if no pod can have
// it. IPv4 subnets go round by themselves.
func nth(subnet netip.Prefix, number uint64) netip.Addr {
	if number == 0 || subnet.Addr().Is4() {
		return netip.Addr{}
	}
	b := subnet.Masked().Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+number)
	a := netip.AddrFrom16(b)
	if first, last := Range(subnet); a.Less(first) || last.Less(a) {
		return netip.Addr{}
	}
	return a
}

// free: not leased, and rested if it was.
func (s *Store) free(a netip.Addr) bool {
	if _, used := s.used[a]; used {
		return false
	}
	at, freed := s.freed[a]
	return !freed || s.now().Sub(at) >= rest
}

// pick goes round the subnet from where the last lease ended. Addresses that
// were freed within rest are taken only when nothing else is left, the one that
// rested longest first.
func (s *Store) pick(subnet netip.Prefix) (netip.Addr, error) {
	first, last := Range(subnet)
	start, ok := s.next[subnet]
	if !ok {
		start = s.first(first, last)
	}
	if start.Less(first) || last.Less(start) {
		start = first
	}
	var rested netip.Addr
	for a := start; ; {
		if _, used := s.used[a]; !used {
			at, freed := s.freed[a]
			if !freed || s.now().Sub(at) >= rest {
				delete(s.freed, a)
				return a, nil
			}
			if !rested.IsValid() || at.Before(s.freed[rested]) {
				rested = a
			}
		}
		if a = next(a, first, last); a == start {
			break
		}
	}
	if rested.IsValid() {
		return rested, nil
	}
	return netip.Addr{}, fmt.Errorf("pod CIDR %s: %w (%d in use)", subnet, ErrFull, s.count(subnet))
}

// first is where a new process begins: at the first address in a new directory,
// else anywhere, because the address the process before it freed last may still
// be on a dying veth.
func (s *Store) first(first, last netip.Addr) netip.Addr {
	if !s.reused {
		return first
	}
	a := first
	for n := rand.IntN(1 << 12); n > 0; n-- {
		a = next(a, first, last)
	}
	return a
}

func next(a, first, last netip.Addr) netip.Addr {
	if a == last {
		return first
	}
	return a.Next()
}

func (s *Store) count(subnet netip.Prefix) int {
	n := 0
	for a := range s.used {
		if subnet.Contains(a) {
			n++
		}
	}
	return n
}

// Range returns the first and the last address of a subnet that a pod can have.
func Range(subnet netip.Prefix) (first, last netip.Addr) {
	first = Gateway(subnet).Next()
	b := subnet.Addr().AsSlice()
	for i := subnet.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ = netip.AddrFromSlice(b)
	if last.Is4() {
		last = last.Prev()
	}
	return first, last
}

// Gateway is the address of the bridge in a subnet: the first one.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }
