package cgroup

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestStatsOfV2 reads what a v2 kernel writes.
func TestStatsOfV2(t *testing.T) {
	tree, _ := fixture(t, map[string]string{
		"cpu.stat":       "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 900",
		"memory.current": "10000", "memory.max": "20000", "memory.swap.current": "300", "memory.swap.max": "1000", "memory.peak": "15000",
		"memory.stat":   "anon 4000\nfile 5000\nfile_mapped 600\ninactive_anon 10\nactive_anon 3990\ninactive_file 1000\nactive_file 2000\npgfault 11\npgmajfault 3",
		"memory.events": "low 0\nhigh 0\nmax 6\noom 2\noom_kill 1\noom_group_kill 0", "pids.current": "4", "pids.max": "max",
		"io.stat":             "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16",
		"cpu.pressure":        "some avg10=1.50 avg60=0.25 avg300=0.00 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7",
		"memory.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0",
		"hugetlb.2MB.current": "2097152", "hugetlb.2MB.rsvd.current": "0",
	})
	got, err := tree.Stats("/ctr")
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		CPU: &CPUStats{UsageNS: 5e6, UserNS: 3e6, SystemNS: 2e6, Periods: 7, Throttled: 2, ThrottledNS: 900e3},
		Memory: &MemoryStats{
			Usage: 10000, WorkingSet: 9000, RSS: 4000, PageFaults: 11, MajorFaults: 3, Limit: 20000, Available: 11000,
			Cache: 5000, MappedFile: 600, ActiveFile: 2000, InactiveFile: 1000, ActiveAnon: 3990, InactiveAnon: 10,
		},
		Swap: &SwapStats{Usage: 300, Limit: 1000}, Pids: &PidsStats{Current: 4, Limit: math.MaxUint64},
		PSI: map[string]PSI{"cpu": {Some: PSILine{Avg10: 1.5, Avg60: 0.25, TotalUS: 123456}, Full: PSILine{TotalUS: 7}}, "memory": {}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Stats{}, "Time")); diff != "" {
		t.Error(diff)
	}
	details := Details{
		MemoryPeak: 15000, MemoryFailures: 6, OOMKills: 1, Hugepages: []HugepageStats{{Size: "2MB", Usage: 2 << 20}},
		Devices: []DeviceIO{{Device: "8:0", ReadBytes: 4096, WriteBytes: 8192, ReadOps: 1, WriteOps: 2}},
	}
	if diff := cmp.Diff(details, tree.Details("/ctr")); diff != "" {
		t.Error(diff)
	}
}

func TestParseBlkio(t *testing.T) {
	got := parseBlkio("8:0 Read 4096\n8:0 Write 100\n8:0 Sync 1\n8:16 Read 1\nTotal 4197\n", "8:0 Read 3\n8:0 Write 2\nTotal 5\n")
	want := []DeviceIO{{Device: "8:0", ReadBytes: 4096, WriteBytes: 100, ReadOps: 3, WriteOps: 2}, {Device: "8:16", ReadBytes: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatsAdd(t *testing.T) {
	a := Stats{CPU: &CPUStats{UsageNS: 1, Throttled: 2}, Memory: &MemoryStats{Usage: 5, Limit: 10, Available: 5}, PSI: map[string]PSI{"cpu": {}}}
	b := Stats{CPU: &CPUStats{UsageNS: 10, Throttled: 20}, Memory: &MemoryStats{Usage: 50, Limit: 100, Available: 50}, Pids: &PidsStats{Current: 3, Limit: 9}}
	a.Add(b)
	want := Stats{CPU: &CPUStats{UsageNS: 11, Throttled: 22}, Memory: &MemoryStats{Usage: 55, Limit: math.MaxUint64}, Pids: &PidsStats{Current: 3, Limit: 9}}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
	if b.CPU.UsageNS != 10 {
		t.Error("what was added has changed")
	}
}
