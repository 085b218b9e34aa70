package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fixture is a v2 tree of plain files: what is written can be read, and nothing is refused.
func fixture(t *testing.T, files map[string]string) (*Tree, string) {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "ctr"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, "ctr", name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := New(Config{Layout: Layout{Mode: "v2", Unified: root, UnifiedControllers: []string{"cpu", "cpuset", "memory", "io", "pids", "hugetlb"}}})
	if err != nil {
		t.Fatal(err)
	}
	return tree, root
}

func TestFormer(t *testing.T) {
	tree, root := fixture(t, map[string]string{
		"cpu.max": "max 100000", "cpu.weight": "100", "cpuset.cpus": "", "memory.max": "max", "memory.high": "max", "io.max": "8:16 rbps=5 wbps=max riops=max wiops=max",
	})
	got, err := tree.Former("/ctr", &specs.LinuxResources{
		CPU:     &specs.LinuxCPU{Quota: new(int64(5000)), Period: new(uint64(10000)), Cpus: "0"},
		Memory:  &specs.LinuxMemory{Limit: new(int64(1 << 20)), Swap: new(int64(1 << 20))},
		Unified: map[string]string{"memory.high": "500000", "io.max": "8:0 rbps=7"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Former{
		{Path: root + "/ctr/cpu.max", Lines: []string{"max 100000"}}, {Path: root + "/ctr/cpuset.cpus", Lines: []string{""}},
		{Path: root + "/ctr/memory.max", Lines: []string{"max"}}, // memory.swap.max is not there: no swap accounting
		{Path: root + "/ctr/io.max", Lines: []string{"8:0 rbps=max wbps=max riops=max wiops=max"}}, {Path: root + "/ctr/memory.high", Lines: []string{"max"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := tree.Former("/ctr", &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "bad", Limit: 1}}}); err == nil {
		t.Error("a size of pages that is none gives no error")
	}
}

// On a real machine: the order of v1's memory files depends on the direction.
func TestTakeBack(t *testing.T) {
	tree, root := realTree(t)
	path := root + "/ctr"
	if err := tree.Create(t.Context(), path, everyday()); err != nil {
		t.Fatal(err)
	}
	before, err := tree.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{256 << 20, 16 << 20} {
		r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(500000)), Period: new(uint64(1000000)), Shares: new(uint64(9))}, Memory: &specs.LinuxMemory{Limit: &limit, Swap: new(limit + 1<<20)}}
		former, err := tree.Former(path, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Update(path, r); err != nil {
			t.Fatal(err)
		}
		if err := tree.TakeBack(former); err != nil {
			t.Fatal(err)
		}
		after, err := tree.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("after an update to %d was taken back: %s", limit, diff)
		}
	}
	if err := tree.TakeBack([]Former{{Path: tree.main().dir(root + "/absent/pids.max"), Lines: []string{"5"}}}); err != nil {
		t.Errorf("of a cgroup that is gone: %v", err)
	}
}
