package netns

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"testing"
	"time"
)

// Many kernels have no SCTP sockets but track and translate SCTP, so the test
// speaks the first half of its handshake over raw sockets (RFC 9260, section 5):
// INIT and INIT ACK, the packets that decide about translation.
const (
	sctpInit    = 1
	sctpInitAck = 2
)

// sctpPacket is a common header and one INIT or INIT ACK chunk.
func sctpPacket(src, dst uint16, tag uint32, kind byte) []byte {
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint32(b[4:], tag)
	b[12] = kind
	binary.BigEndian.PutUint16(b[14:], 20)
	binary.BigEndian.PutUint32(b[16:], 0xcafe)  // initiate tag
	binary.BigEndian.PutUint32(b[20:], 1<<16)   // window
	binary.BigEndian.PutUint32(b[24:], 1<<16|1) // one stream out; one in, below
	binary.BigEndian.PutUint16(b[26:], 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func sctpChecksumHolds(b []byte) bool {
	c := append([]byte(nil), b...)
	clear(c[8:12])
	return binary.LittleEndian.Uint32(b[8:]) == crc32.Checksum(c, crc32.MakeTable(crc32.Castagnoli))
}

// serveSCTP answers each INIT on port 80 of a pod.
func serveSCTP(t testing.TB, ns, network string) {
	t.Helper()
	var pc net.PacketConn
	if err := in(t, ns, func() (err error) {
		pc, err = net.ListenPacket(network, "")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if n >= 32 && buf[12] == sctpInit && binary.BigEndian.Uint16(buf[2:]) == 80 && sctpChecksumHolds(buf[:n]) {
				_, _ = pc.WriteTo(sctpPacket(80, binary.BigEndian.Uint16(buf), 0xcafe, sctpInitAck), from)
			}
		}
	}()
}

// askSCTP says whether an INIT to the address is answered from there.
func askSCTP(t testing.TB, ns, network, addr string, port uint16) bool {
	t.Helper()
	answered := false
	if err := in(t, ns, func() error {
		pc, err := net.ListenPacket(network, "")
		if err != nil {
			return err
		}
		defer pc.Close()
		to := &net.IPAddr{IP: net.ParseIP(addr)}
		if _, err := pc.WriteTo(sctpPacket(7000, port, 0, sctpInit), to); err != nil {
			return nil //nolint:nilerr // not reached
		}
		_ = pc.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return nil //nolint:nilerr // not answered
			}
			if n >= 32 && buf[12] == sctpInitAck && from.String() == addr && binary.BigEndian.Uint16(buf) == port && sctpChecksumHolds(buf[:n]) {
				answered = true
				return nil
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return answered
}

func TestSCTPHostPort(t *testing.T) {
	n := dualStack(t)
	away := outside(t)
	a := attach(t, n, "a", PortMapping{Protocol: "SCTP", ContainerPort: 80, HostPort: 3868})
	b := attach(t, n, "b")
	serveSCTP(t, a.ns, "ip4:132")
	serveSCTP(t, a.ns, "ip6:132")
	for _, tc := range []struct{ name, ns, network, addr string }{
		{"outside", away, "ip4:132", hostIP},
		{"outside, IPv6", away, "ip6:132", hostIP6},
		{"neighbour", b.ns, "ip4:132", hostIP},
		{"neighbour, IPv6", b.ns, "ip6:132", hostIP6},
		{"host by 127.0.0.1", "", "ip4:132", "127.0.0.1"},
		{"host by its address", "", "ip4:132", hostIP},
		{"host by its IPv6 address", "", "ip6:132", hostIP6},
	} {
		if !askSCTP(t, tc.ns, tc.network, tc.addr, 3868) {
			t.Errorf("from %s: no INIT ACK", tc.name)
		}
		if askSCTP(t, tc.ns, tc.network, tc.addr, 3869) {
			t.Errorf("from %s: an unmapped port answers", tc.name)
		}
	}
	detach(t, n, a)
	if askSCTP(t, away, "ip4:132", hostIP, 3868) {
		t.Error("answers after detach")
	}
}
