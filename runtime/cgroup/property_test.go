package cgroup

import (
	"math"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// values makes properties comparable.
func values(list []property) map[string]any {
	m := map[string]any{}
	for _, p := range list {
		m[p.Name] = p.Value.Value()
	}
	return m
}

func TestLimitProperties(t *testing.T) {
	const none = uint64(math.MaxUint64)
	cpu := func(quota int64, period uint64) *specs.LinuxResources {
		return &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}
	}
	tests := []struct {
		name, mode string
		version    int
		resources  *specs.LinuxResources
		want       map[string]any
	}{
		{"nothing", "v2", 252, &specs.LinuxResources{}, map[string]any{}},
		{"everyday", "v2", 252, everyday(), map[string]any{
			"CPUWeight": uint64(59), "CPUQuotaPerSecUSec": uint64(500000), "CPUQuotaPeriodUSec": uint64(100000),
			"MemoryMax": uint64(64 << 20), "MemorySwapMax": uint64(0), "TasksMax": uint64(100),
		}},
		{"everyday on v1", "v1", 252, everyday(), map[string]any{
			"CPUShares": uint64(512), "CPUQuotaPerSecUSec": uint64(500000), "CPUQuotaPeriodUSec": uint64(100000),
			"MemoryLimit": uint64(64 << 20), "TasksMax": uint64(100),
		}},
		{"quota of half a percent is rounded up", "v2", 252, cpu(500, 100000), map[string]any{"CPUQuotaPerSecUSec": uint64(10000), "CPUQuotaPeriodUSec": uint64(100000)}},
		{"quota of more than a CPU", "v2", 252, cpu(25001, 10000), map[string]any{"CPUQuotaPerSecUSec": uint64(2510000), "CPUQuotaPeriodUSec": uint64(10000)}},
		{"quota lifted", "v2", 252, cpu(-1, 100000), map[string]any{"CPUQuotaPerSecUSec": none, "CPUQuotaPeriodUSec": uint64(100000)}},
		{"quota lifted on v1", "v1", 252, cpu(-1, 100000), map[string]any{"CPUQuotaPerSecUSec": none, "CPUQuotaPeriodUSec": uint64(100000)}},
		{"limits lifted", "v2", 252, &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: new(int64(-1)), Swap: new(int64(-1))}, Pids: &specs.LinuxPids{Limit: new(int64(-1))},
		}, map[string]any{"MemoryMax": none, "MemorySwapMax": none, "TasksMax": none}},
		{"reservation", "v2", 252, &specs.LinuxResources{Memory: &specs.LinuxMemory{Reservation: new(int64(4096))}}, map[string]any{"MemoryLow": uint64(4096)}},
		{"cpuset", "v2", 252, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0,9", Mems: "0"}}, map[string]any{"AllowedCPUs": []byte{1, 2}, "AllowedMemoryNodes": []byte{1}}},
		{"idle", "v2", 252, &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(1)), Shares: new(uint64(512))}}, map[string]any{"CPUWeight": uint64(0)}},
		{"idle no more", "v2", 252, &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(0))}}, map[string]any{"CPUWeight": uint64(100)}},
		{"idle of an old systemd", "v2", 249, &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(1))}}, map[string]any{}},
		{"unified", "v2", 252, &specs.LinuxResources{Unified: map[string]string{"memory.high": "max", "memory.min": "4096", "cpu.weight": "7", "cgroup.max.depth": "3"}}, map[string]any{
			"MemoryHigh": none, "MemoryMin": uint64(4096), "CPUWeight": uint64(7),
		}},
		{"block weight", "v2", 252, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(500))}}, map[string]any{"IOWeight": uint64(4950)}},
		{"block weight on v1", "v1", 252, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(500))}}, map[string]any{"BlockIOWeight": uint64(500)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, err := New(Config{Layout: testLayout(tt.mode)})
			if err != nil {
				t.Fatal(err)
			}
			plan, err := tree.settings(tt.resources)
			if err != nil {
				t.Fatal(err)
			}
			got := values(limitProperties(plan.settings, tt.version, initialOf(plan.settings)))
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// An update of one of two files that make a property reads the other.
func TestLimitPropertiesOfHalfAQuota(t *testing.T) {
	now := func(file string) string {
		return map[string]string{"cpu.cfs_period_us": "50000", "cpu.max": "9000 50000"}[file]
	}
	for _, mode := range []string{"v1", "v2"} {
		tree, err := New(Config{Layout: testLayout(mode)})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := tree.settings(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(10000))}})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"CPUQuotaPerSecUSec": uint64(200000), "CPUQuotaPeriodUSec": uint64(50000)}
		if d := cmp.Diff(want, values(limitProperties(plan.settings, 252, now))); d != "" {
			t.Errorf("%s: %s", mode, d)
		}
	}
}

func TestOOMPolicy(t *testing.T) {
	tests := []struct {
		name, value string
		version     int
		want        map[string]any
	}{
		{"kill", "1", 253, map[string]any{"OOMPolicy": "kill"}},
		{"continue", "0", 256, map[string]any{"OOMPolicy": "continue"}},
		{"too old", "1", 252, map[string]any{}},
		{"neither", "2", 256, map[string]any{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := values(oomPolicy([]setting{{file: "memory.oom.group", value: tt.value}}, tt.version))
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// The forms are those of runc's docs/systemd.md.
func TestParseProperty(t *testing.T) {
	tests := []struct {
		name, in, says string
		want           any
		as             string
	}{
		{"number", "TimeoutStopUSec=uint64 123456789", "", uint64(123456789), "TimeoutStopUSec"},
		{"text", "CollectMode='inactive-or-failed'", "", "inactive-or-failed", "CollectMode"},
		{"list", "After=['a.service', 'b.service']", "", []string{"a.service", "b.service"}, "After"},
		{"seconds", "TimeoutStopSec=5", "", uint64(5000000), "TimeoutStopUSec"},
		{"parts of a second", "TimeoutStopSec=2.5", "", uint64(2500000), "TimeoutStopUSec"},
		{"a name that is only like seconds", "USec=5", "", int32(5), "USec"},
		{"equals sign in the value", "Description='a=b'", "", "a=b", "Description"},
		{"no quotes", "CollectMode=inactive", "is not a value in GVariant's text form", nil, ""},
		{"nothing", "CollectMode=", "is not a value", nil, ""},
		{"negative seconds", "TimeoutStopSec=-5", "not a number of seconds", nil, ""},
		{"no seconds", "TimeoutStopSec='x'", "not a number of seconds", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseProperty(tt.in)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v, %v; want %q", got, err, tt.says)
				}
				return
			}
			if d := cmp.Diff(map[string]any{tt.as: tt.want}, values([]property{got})); d != "" || err != nil {
				t.Error(d, err)
			}
		})
	}
}

func FuzzParseProperty(f *testing.F) {
	for _, s := range []string{"TimeoutStopSec=5", "CollectMode='x'", "After=['a']", "X=uint64 1e3", "Sec=", "a=b=c", "DeviceAllow=[('/dev/null','rw')]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parseProperty(s); err == nil && p.Value == (dbus.Variant{}) {
			t.Errorf("%q is a property without a value", s)
		}
	})
}

func TestLeadingNumber(t *testing.T) {
	for in, want := range map[string]int{"252.39-1~deb12u1": 252, "v249": 249, "256": 256, "": 0, "rc1": 0} {
		if got := leadingNumber(in); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}
