package main

import (
	"strconv"
	"strings"
	"sync"
	"testing"
)

// together makes n calls at the same time and counts those that succeed; the others may say one of words.
func (b *bundleDir) together(n int, words []string, args func(i int) []string) (good int) {
	b.t.Helper()
	results := make([]result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i] = b.mini(args(i)...) })
	}
	wg.Wait()
	for i, r := range results {
		if r.code == 0 {
			good++
			continue
		}
		known := false
		for _, w := range words {
			known = known || strings.Contains(r.err, w)
		}
		if !known {
			b.t.Errorf("mini-runc %q: %+v", args(i), r)
		}
	}
	return good
}

// TestTogether: of commands on one container at the same time one wins, and the others say why they could not.
func TestTogether(t *testing.T) {
	const n = 8
	b := newBundle(t, "exec busybox sleep 1000")
	b.write()
	same := func(args ...string) func(int) []string { return func(int) []string { return args } }
	if good := b.together(n, []string{"already exists"}, same("create", "x")); good != 1 {
		t.Errorf("%d of %d creates succeed", good, n)
	}
	want(t, b.status("x"), "created")
	if good := b.together(n, []string{"cannot start an already running container"}, same("start", "x")); good != 1 {
		t.Errorf("%d of %d starts succeed", good, n)
	}
	if good := b.together(n, nil, same("exec", "x", "busybox", "true")); good != n {
		t.Errorf("%d of %d execs succeed", good, n)
	}
	if good := b.together(n, nil, same("delete", "--force", "x")); good != n {
		t.Errorf("%d of %d forced deletes succeed", good, n)
	}
	b.nothingLeft()
	b.ok("run", "-d", "x")
	b.ok("kill", "x", "KILL")
	b.waitStatus("x", "stopped")
	if good := b.together(n, []string{"container does not exist"}, same("delete", "x")); good != 1 {
		t.Errorf("%d of %d deletes succeed", good, n)
	}
	b.nothingLeft()
}

// TestManyAtOnce: containers do not get into each other's way.
func TestManyAtOnce(t *testing.T) {
	const n = 16
	b := newBundle(t, "exit 0")
	group := b.spec.Linux.CgroupsPath
	b.spec.Linux.CgroupsPath = "" // each its own
	b.write()
	b.spec.Linux.CgroupsPath = group
	prefix := strings.TrimPrefix(ours, "/") + "-"
	if good := b.together(n, nil, func(i int) []string { return []string{"run", prefix + strconv.Itoa(i)} }); good != n {
		t.Errorf("%d of %d runs succeed", good, n)
	}
	b.nothingLeft()
}
