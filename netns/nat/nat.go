// Package nat owns one nftables table: masquerade of what pods send out of
// their CIDR, host ports, and the guard that route_localnet needs.
//
// Only netns/bridge and netns may import it. One invariant: the table in the
// kernel is always the whole truth of the mappings held in memory. A pod's
// mappings come and go in one transaction; whatever does not fit (the table was
// flushed, the daemon restarted) replaces the whole table in one transaction, so
// that at no moment is a rule missing that was there before.
//
// The table is named like the bridge, because two daemons on one machine have
// two bridges and must not replace each other's rules.
package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Mapping sends one port of the host to one port of a pod.
type Mapping struct {
	Protocol string     // tcp, udp or sctp
	HostIP   netip.Addr // zero: every local address of Pod's family
	HostPort uint16
	Pod      netip.Addr
	PodPort  uint16
}

// key is what two mappings must not share.
type key struct {
	proto byte
	ip    netip.Addr
	port  uint16
	v6    bool
}

func (m Mapping) key() key {
	return key{proto: protocols[m.Protocol], ip: m.HostIP, port: m.HostPort, v6: m.Pod.Is6()}
}

func (m Mapping) String() string {
	host := "*"
	if m.HostIP.IsValid() {
		host = m.HostIP.String()
	}
	return fmt.Sprintf("%s:%d/%s", host, m.HostPort, m.Protocol)
}

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// ConflictError says that a host port already leads to another pod.
type ConflictError struct {
	Mapping Mapping
	Holder  string // owner of the port, as given to Add
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("host port %s is held by pod %s", e.Mapping, e.Holder)
}

// Table is the nftables table and what it must contain.
type Table struct {
	bridge string

	mu      sync.Mutex
	subnets []netip.Prefix
	owners  map[string][]Mapping
	held    map[key]string
	conn    *nftables.Conn // see open
}

// New returns the table of a bridge. It touches nothing until Rebuild.
func New(bridge string) *Table {
	return &Table{bridge: bridge, owners: map[string][]Mapping{}, held: map[key]string{}}
}

// Name is the table's name; its family is inet.
func (t *Table) Name() string { return t.bridge }

// Reset forgets what is in memory and takes these mappings, by owner, instead;
// call Rebuild next. Of two owners of a port the first by name keeps it: such
// records can only come from another program's hand.
func (t *Table) Reset(owners map[string][]Mapping) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owners, t.held = map[string][]Mapping{}, map[key]string{}
	names := make([]string, 0, len(owners))
	for o := range owners {
		names = append(names, o)
	}
	sort.Strings(names)
	for _, o := range names {
		if t.conflict(o, owners[o]) == nil {
			t.hold(o, owners[o])
		}
	}
}

func (t *Table) conflict(owner string, ms []Mapping) error {
	own := map[key]Mapping{}
	for _, m := range ms {
		if o, ok := own[m.key()]; ok && o != m {
			return fmt.Errorf("host port %s leads to container ports %d and %d", m, o.PodPort, m.PodPort)
		}
		own[m.key()] = m
		if _, ok := protocols[m.Protocol]; !ok {
			return fmt.Errorf("host port %s: protocol is none of tcp, udp, sctp", m)
		}
		if h, ok := t.held[m.key()]; ok && h != owner {
			return &ConflictError{Mapping: m, Holder: h}
		}
	}
	return nil
}

func (t *Table) hold(owner string, ms []Mapping) {
	if len(ms) == 0 {
		return
	}
	t.owners[owner] = ms
	for _, m := range ms {
		t.held[m.key()] = owner
	}
}

// Rebuild replaces the table in the kernel by one made from memory. Packets from
// the subnets are masqueraded when they leave the bridge's side.
func (t *Table) Rebuild(subnets []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subnets = subnets
	return t.rebuild()
}

// Add maps the owner's ports. Adding what is there already is no error.
func (t *Table) Add(owner string, ms []Mapping) error {
	if len(ms) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.conflict(owner, ms); err != nil {
		return err
	}
	_, again := t.owners[owner]
	t.hold(owner, ms)
	if !again {
		if err := t.update(ms, true); err == nil {
			return nil
		}
	}
	if err := t.rebuild(); err != nil {
		t.forget(owner)
		return err
	}
	return nil
}

// Remove unmaps all ports of the owner; that there are none is no error.
func (t *Table) Remove(owner string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ms := t.owners[owner]
	if len(ms) == 0 {
		return nil
	}
	t.forget(owner)
	if err := t.update(ms, false); err == nil {
		return nil
	}
	if err := t.rebuild(); err != nil {
		t.hold(owner, ms) // so that a retry of Remove tries again
		return err
	}
	return nil
}

func (t *Table) forget(owner string) {
	for _, m := range t.owners[owner] {
		delete(t.held, m.key())
	}
	delete(t.owners, owner)
}

// Present says whether the kernel still has the table; `nft flush ruleset` or a
// restart of nftables.service removes it.
func (t *Table) Present() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.open()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		t.close()
		return false, fmt.Errorf("list nft tables: %w", err)
	}
	for _, have := range tables {
		if have.Name == t.bridge {
			return true, nil
		}
	}
	return false, nil
}

// Delete removes the table from the kernel and the mappings from memory.
func (t *Table) Delete() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owners, t.held = map[string][]Mapping{}, map[key]string{}
	c, err := t.open()
	if err != nil {
		return err
	}
	defer t.close()
	c.DelTable(&nftables.Table{Name: t.bridge, Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nft table inet %s: %w", t.bridge, err)
	}
	return nil
}

// open returns the one socket that all transactions go through. When a socket of
// this family is closed the kernel waits until what was deleted last is freed, a
// grace period of 10 ms: it is closed only after errors, to lose unread answers.
func (t *Table) open() (*nftables.Conn, error) {
	if t.conn == nil {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return nil, fmt.Errorf("open nftables: %w", err)
		}
		t.conn = c
	}
	return t.conn, nil
}

func (t *Table) close() {
	if t.conn != nil {
		_ = t.conn.CloseLasting()
		t.conn = nil
	}
}

// Close closes the socket; the table stays.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close()
}
