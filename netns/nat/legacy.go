package nat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// xtFamily is how the kernel shows one family's iptables-legacy tables:
// struct ipt_getinfo, ipt_get_entries, ipt_entry of linux/netfilter_ipv4/ip_tables.h
// and their twins in ip6_tables.h.
type xtFamily struct {
	name, command string
	domain, level int
	tables        string // lists the tables that exist, in this network namespace
	ifaces        int    // offset of iniface in an entry; outiface follows it
	size          int    // of an entry's fixed part
	target        int    // offset of target_offset; next_offset follows it
}

var (
	xt4 = xtFamily{name: "ip", command: "iptables", domain: unix.AF_INET, level: unix.SOL_IP,
		tables: "/proc/thread-self/net/ip_tables_names", ifaces: 16, size: 112, target: 88}
	xt6 = xtFamily{name: "ip6", command: "ip6tables", domain: unix.AF_INET6, level: unix.SOL_IPV6,
		tables: "/proc/thread-self/net/ip6_tables_names", ifaces: 64, size: 168, target: 140}
)

const (
	soGetInfo    = 64 // IPT_SO_GET_INFO
	soGetEntries = 65 // IPT_SO_GET_ENTRIES

	nameSize   = 32 // of a table
	infoSize   = 84 // struct ipt_getinfo
	headSize   = 40 // struct ipt_get_entries, padded for the entries behind
	targetSize = 32 // struct xt_entry_target
	forward    = 2  // NF_INET_FORWARD
	dropped    = -1 // -NF_DROP - 1, a standard target's verdict
	maxEntries = 1 << 24
)

// drops says whether the policy of chain FORWARD is DROP and no rule lets the
// bridge's packets pass in both directions.
func (f xtFamily) drops(bridge string) (bool, error) {
	names, err := os.ReadFile(f.tables)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("list %s-legacy tables: %w", f.command, err)
	}
	// To ask for a table that is not listed would make it.
	if !strings.Contains("\n"+string(names), "\nfilter\n") {
		return false, nil
	}
	policy, entries, err := f.read()
	if err != nil {
		return false, fmt.Errorf("read %s-legacy table filter: %w", f.command, err)
	}
	if !f.discards(entries, policy) {
		return false, nil
	}
	in, out := f.named(entries, bridge)
	return !in || !out, nil
}

// read returns the entries of table filter, and where the entry is that stands
// for FORWARD's policy.
func (f xtFamily) read() (policy int, entries []byte, err error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, nil, fmt.Errorf("open raw socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	info := make([]byte, infoSize)
	copy(info, "filter")
	if _, err := linux.Getsockopt(fd, f.level, soGetInfo, info); err != nil {
		return 0, nil, err
	}
	order := binary.NativeEndian
	const hooks, underflow, size = nameSize + 4, nameSize + 4 + 20, infoSize - 4
	policy = int(order.Uint32(info[underflow+4*forward:]))
	total := order.Uint32(info[size:])
	if total > maxEntries {
		return 0, nil, fmt.Errorf("%d bytes of rules are more than %d", total, maxEntries)
	}
	buf := make([]byte, headSize+total)
	copy(buf, "filter")
	order.PutUint32(buf[nameSize:], total)
	if _, err := linux.Getsockopt(fd, f.level, soGetEntries, buf); err != nil {
		return 0, nil, err // EAGAIN: the table was changed meanwhile
	}
	return policy, buf[headSize:], nil
}

// discards says whether the target of the entry at an offset is DROP, which is a
// standard target (one without a name) with a verdict, or REJECT.
func (f xtFamily) discards(entries []byte, at int) bool {
	if at < 0 || at+f.size > len(entries) {
		return false
	}
	t := at + int(binary.NativeEndian.Uint16(entries[at+f.target:]))
	if t+targetSize+4 > len(entries) {
		return false
	}
	name := cString(entries[t+2 : t+targetSize-1])
	return name == "REJECT" || name == "" && int32(binary.NativeEndian.Uint32(entries[t+targetSize:])) == dropped
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// named says whether rules that do not drop name the bridge as where a packet
// comes from and as where it goes.
func (f xtFamily) named(entries []byte, bridge string) (in, out bool) {
	for at := 0; at+f.size <= len(entries); {
		e := entries[at:]
		next := int(binary.NativeEndian.Uint16(e[f.target+2:]))
		if next < f.size {
			break
		}
		if !f.discards(entries, at) {
			in = in || cString(e[f.ifaces:f.ifaces+unix.IFNAMSIZ]) == bridge
			out = out || cString(e[f.ifaces+unix.IFNAMSIZ:f.ifaces+2*unix.IFNAMSIZ]) == bridge
		}
		at += next
	}
	return in, out
}
