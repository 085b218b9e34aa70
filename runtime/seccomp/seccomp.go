// Package seccomp owns the way from a seccomp profile to the bytes that the
// kernel takes: profiles are compiled once, in the parent, and init loads them
// with one call. runtime/compile and whoever starts containers import it; it
// imports nothing of this module.
//
// The compiler is libseccomp, which knows the numbers of the system calls on
// every architecture. What is missing in an old one is the calls that are newer
// than itself; see newer.go.
//
// A program that is built without cgo has no libseccomp; Linked tells. It starts
// faster, and leaves what it needs of the library to one that has it.
//
// Invariant: a Filter never changes once Compile returned it, so that all who
// ask for the same profile share one.
package seccomp

import (
	"fmt"
	"sync"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Filter is a compiled profile.
type Filter struct {
	// BPF is an array of struct sock_filter in the machine's byte order.
	BPF []byte
	// Flags are those of seccomp(2) that it has to be loaded with.
	Flags uint32
	// Insns is the number of instructions, len(BPF)/8.
	Insns int
	// Hash names the profile: hexadecimal SHA-256 of what is in it.
	Hash string
	// Notify says that loading gives a listener descriptor, which belongs to
	// the agent at the profile's listenerPath.
	Notify bool
}

// Flags of seccomp(2). x/sys has some, as numbers of another type.
const (
	flagLog              = 1 << 1
	flagSpecAllow        = 1 << 2
	flagNewListener      = 1 << 3
	flagWaitKillableRecv = 1 << 5
)

// Known are the words of config.json that Compile takes on this machine, sorted.
type Known struct{ Actions, Operators, Archs, Flags []string }

// cacheSize bounds the cache. A node has a handful of profiles; somebody who
// makes a new one for each container pays a compilation each, and no memory.
const cacheSize = 64

// cache maps a profile's hash to its filter, or to the compilation in progress.
var cache = struct {
	sync.Mutex
	entries map[string]*entry
	order   []string // oldest first
}{entries: map[string]*entry{}}

type entry struct {
	once   sync.Once
	filter *Filter
	err    error
}

var misses atomic.Uint64

// Misses returns how many profiles were compiled since the start; a lookup that
// the cache answered does not count.
func Misses() uint64 { return misses.Load() }

// Compile returns the filter of a profile; nil for nil, which is unconfined. A
// profile that was compiled before costs microseconds, a new one about five
// milliseconds. An error names the part of config.json at fault, or the version
// of libseccomp that is needed. It may be called at the same time; one profile is
// then compiled once.
func Compile(profile *specs.LinuxSeccomp) (*Filter, error) {
	if profile == nil {
		return nil, nil
	}
	hash := hashOf(profile)
	e := lookup(hash)
	e.once.Do(func() {
		misses.Add(1)
		e.filter, e.err = compile(profile)
		if e.err != nil {
			forget(hash, e)
			return
		}
		e.filter.Hash = hash
	})
	if e.err != nil {
		return nil, fmt.Errorf("linux.seccomp.%w", e.err)
	}
	return e.filter, nil
}

// lookup returns the entry of a hash, a new one where there is none.
func lookup(hash string) *entry {
	cache.Lock()
	defer cache.Unlock()
	if e, ok := cache.entries[hash]; ok {
		return e
	}
	if len(cache.order) >= cacheSize {
		delete(cache.entries, cache.order[0])
		cache.order = cache.order[1:]
	}
	e := &entry{}
	cache.entries[hash] = e
	cache.order = append(cache.order, hash)
	return e
}

// forget drops a failed entry, so that a repaired kernel or library is seen.
func forget(hash string, e *entry) {
	cache.Lock()
	defer cache.Unlock()
	if cache.entries[hash] != e {
		return
	}
	delete(cache.entries, hash)
	for i, h := range cache.order {
		if h == hash {
			cache.order = append(cache.order[:i:i], cache.order[i+1:]...)
			break
		}
	}
}
