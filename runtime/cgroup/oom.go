package cgroup

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/unit"
)

// OOMKills returns how many processes in the cgroup and below it the OOM killer
// has killed; 0 for one that is absent, so it must be read before Remove.
//
// systemd removes the cgroup of a scope as soon as nobody is in it, often before
// anybody could read it. On v2 the slice it was in goes on counting its kills, with
// those of all others that were ever in it: what none of those that are there has,
// and Remove has not settled yet, is the one's that is gone. On v1 nobody counts
// any more.
func (t *Tree) OOMKills(name string) uint64 {
	h := t.find("memory")
	path, err := locate(name)
	if h == nil || err != nil {
		return 0
	}
	if h.v2 {
		kills, there := eventsOf(h.dir(path))
		if there || !unit.Is(name) {
			return kills
		}
		u, _ := unit.Parse(name) // has been parsed before
		t.lost.Lock()
		defer t.lost.Unlock()
		return lostKills(sliceOf(h, u))
	}
	var kills uint64 // v1 counts for each cgroup alone
	_ = walk(h.dir(path), func(dir string) error {
		text, err := readFile(dir, "memory.oom_control")
		kills += lookup(text, "oom_kill")
		return err
	})
	return kills
}

// eventsOf gives the kills of a cgroup on v2. One that is being removed loses its
// files first: it is not there any more when they are not.
func eventsOf(dir string) (kills uint64, there bool) {
	text, err := readFile(dir, "memory.events")
	return lookup(text, "oom_kill"), err == nil
}

func sliceOf(h *hierarchy, u unit.Unit) string { return h.dir(u.Path[:len(u.Path)-len("/"+u.Name)]) }

// settledKills is what a slice remembers: how many of its kills are those of
// scopes that are gone, or that carry the same mark and are about to go. It is an
// attribute like mark: no other record is needed, and it goes with the slice.
const settledKills = "trusted.cri-mini.oom-kills"

// lostKills counts the kills in a slice that are of no cgroup in it, beside those
// that are settled. The sum is taken again when something was killed meanwhile.
func lostKills(slice string) uint64 {
	const rounds = 10
	for range rounds {
		all, _ := eventsOf(slice)
		known := attribute(slice, settledKills)
		names, err := subdirs(slice)
		if err != nil {
			return 0
		}
		for _, name := range names {
			if dir := slice + "/" + name; attribute(dir, settledKills) == 0 {
				kills, _ := eventsOf(dir)
				known += kills
			}
		}
		if now, _ := eventsOf(slice); now == all {
			return all - min(all, known)
		}
	}
	return 0
}

// settle takes the kills of a scope that is to be removed out of what OOMKills
// would say of the next one. It may be repeated.
func (t *Tree) settle(name string) {
	h := t.find("memory")
	u, err := unit.Parse(name)
	if h == nil || !h.v2 || err != nil || !u.Scope() {
		return
	}
	slice, dir := sliceOf(h, u), h.dir(u.Path)
	t.lost.Lock()
	defer t.lost.Unlock()
	kills, there := eventsOf(dir)
	if !there {
		kills = lostKills(slice)
	} else if attribute(dir, settledKills) > 0 {
		return
	}
	if kills == 0 {
		return
	}
	setAttribute(dir, settledKills, kills)
	setAttribute(slice, settledKills, attribute(slice, settledKills)+kills)
}

func attribute(dir, name string) uint64 {
	var text [20]byte
	n, err := unix.Getxattr(dir, name, text[:])
	if err != nil {
		return 0
	}
	value, _ := strconv.ParseUint(string(text[:n]), 10, 64)
	return value
}

// setAttribute is best effort, as setMark is.
func setAttribute(dir, name string, value uint64) {
	_ = unix.Setxattr(dir, name, []byte(strconv.FormatUint(value, 10)), 0)
}
