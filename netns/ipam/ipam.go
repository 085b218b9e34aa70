// Package ipam owns the leases of the built-in network: which pod interface
// holds which addresses, and which host ports lead to it.
//
// Only netns/bridge may import it. One invariant: a lease file exists before
// the address it names is put on any interface, and is deleted only by Release
// or Open; so after a crash the directory lists at least every address in use.
//
// A lease is one small JSON file, <pod>@<interface>, created with O_EXCL and
// written in one call. A crash in between leaves a file that does not parse:
// nothing was made from it yet, so Open deletes it. There is no fsync: no
// interface survives a power cut, hence no lease may (see Open).
package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// rest is how long a released address is passed over while others are free: its
// old veth dies asynchronously with the network namespace (5 to 25 ms, more
// under load).
const rest = 10 * time.Second

// ErrFull is wrapped by Acquire when a pod CIDR has no free address left.
var ErrFull = errors.New("no free address")

// Owner identifies a lease: one interface of one pod.
type Owner struct {
	Pod    string `json:"pod"`
	IfName string `json:"ifName"`
}

func (o Owner) String() string { return o.Pod + "@" + o.IfName }

// Port is one host port that leads to the lease's address.
type Port struct {
	Protocol string     `json:"protocol"` // tcp, udp or sctp
	HostIP   netip.Addr `json:"hostIP"`   // zero: every local address; 0.0.0.0 or ::, of that family
	HostPort uint16     `json:"hostPort"`
	PodPort  uint16     `json:"podPort"`
}

// Shape is what the owner may receive and send, in bits per second; 0 is no limit.
type Shape struct {
	Ingress uint64 `json:"ingress,omitempty"`
	Egress  uint64 `json:"egress,omitempty"`
}

// Lease is what the file holds. Addrs has one prefix per address family: the
// pod's address with the length of the pod CIDR it was taken from.
type Lease struct {
	Owner
	Network string         `json:"network"` // name in the conflist
	Addrs   []netip.Prefix `json:"addrs"`
	Ports   []Port         `json:"ports,omitempty"`
	Shape   Shape          `json:"shape,omitzero"`
}

// Store is the set of leases under one directory. One process may use a
// directory at a time.
type Store struct {
	dir string
	now func() time.Time

	mu     sync.Mutex
	leases map[Owner]Lease
	used   map[netip.Addr]Owner
	freed  map[netip.Addr]time.Time
	next   map[netip.Prefix]netip.Addr
	reused bool // the directory was there before: start anywhere, see first
}

// Open reads the leases in dir, making it if absent. bootID names the running
// kernel (/proc/sys/kernel/random/boot_id): leases of another boot are deleted,
// because no network namespace outlives its kernel.
func Open(dir, bootID string, log *slog.Logger) (*Store, error) {
	s := &Store{
		dir: dir, now: time.Now,
		leases: map[Owner]Lease{}, used: map[netip.Addr]Owner{},
		freed: map[netip.Addr]time.Time{}, next: map[netip.Prefix]netip.Addr{},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open leases: %w", err)
	}
	boot, err := os.ReadFile(s.bootFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open leases: %w", err)
	}
	s.reused = err == nil
	stale := string(boot) != bootID
	if err := s.load(stale, log); err != nil {
		return nil, err
	}
	if stale {
		if err := os.WriteFile(s.bootFile(), []byte(bootID), 0o600); err != nil {
			return nil, fmt.Errorf("open leases: %w", err)
		}
	}
	return s, nil
}

func (s *Store) bootFile() string { return filepath.Join(s.dir, ".boot") }

func (s *Store) load(stale bool, log *slog.Logger) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("open leases: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		var l Lease
		if !stale {
			l, err = read(path)
		}
		if stale || err != nil || l.Owner.String() != e.Name() || s.taken(l.Addrs) {
			if err != nil {
				log.Warn("drop unreadable lease", "obj", path, "err", err)
			}
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("drop lease: %w", err)
			}
			continue
		}
		s.hold(l)
	}
	return nil
}

func read(path string) (Lease, error) {
	var l Lease
	data, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, fmt.Errorf("parse lease %s: %w", path, err)
	}
	return l, nil
}

func (s *Store) taken(addrs []netip.Prefix) bool {
	for _, p := range addrs {
		if _, ok := s.used[p.Addr()]; ok {
			return true
		}
	}
	return len(addrs) == 0
}

func (s *Store) hold(l Lease) {
	s.leases[l.Owner] = l
	for _, p := range l.Addrs {
		s.used[p.Addr()] = l.Owner
		delete(s.freed, p.Addr())
	}
}

// Acquire stores the lease l with one address of each subnet added. An owner
// that has a lease gets that one back, had = true. The first address of a subnet
// is the gateway's and, in IPv4, the last one is broadcast.
func (s *Store) Acquire(l Lease, subnets []netip.Prefix) (lease Lease, had bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.leases[l.Owner]; ok {
		return l, true, nil
	}
	if l.Addrs, err = s.pickAll(subnets); err != nil {
		return Lease{}, false, err
	}
	if err := s.write(l); err != nil {
		return Lease{}, false, fmt.Errorf("write lease of %s: %w", l.Owner, err)
	}
	s.hold(l)
	for i, subnet := range subnets {
		s.next[subnet] = l.Addrs[i].Addr().Next()
	}
	return l, false, nil
}

func (s *Store) write(l Lease) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, l.Owner.String())
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Get returns the owner's lease.
func (s *Store) Get(o Owner) (Lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[o]
	return l, ok
}

// Release deletes the owner's lease; that there is none is no error. Its
// addresses rest before they are leased again.
func (s *Store) Release(o Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[o]
	if !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(s.dir, o.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release lease: %w", err)
	}
	delete(s.leases, o)
	now := s.now()
	if len(s.freed) > 4096 {
		for a, at := range s.freed {
			if now.Sub(at) >= rest {
				delete(s.freed, a)
			}
		}
	}
	for _, p := range l.Addrs {
		delete(s.used, p.Addr())
		s.freed[p.Addr()] = now
	}
	return nil
}

// Reused tells whether a process before this one had the directory.
func (s *Store) Reused() bool { return s.reused }

// Remove deletes the directory, unless there are leases in it.
func (s *Store) Remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leases) > 0 {
		return nil
	}
	for _, path := range []string{s.bootFile(), s.dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove leases: %w", err)
		}
	}
	return nil
}

// List returns all leases, ordered by owner.
func (s *Store) List() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Lease, 0, len(s.leases))
	for _, l := range s.leases {
		out = append(out, l)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Owner.String() < out[j].Owner.String() })
	return out
}
