package host

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hybridInfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,clone_children
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
50 31 0:33 /kubepods/x /var/lib/c/rootfs/sys/fs/cgroup/memory rw master:3 - cgroup cgroup rw,memory
51 31 0:33 / /mnt/with\040blank/memory rw - cgroup cgroup rw,memory
52 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
53 31 0:33 / /cg/memory rw - cgroup cgroup rw,memory
`

func TestChooseMounts(t *testing.T) {
	for _, test := range []struct {
		name   string
		info   string
		hidden string
		want   Cgroup
	}{
		{
			name: "one controller in many places",
			info: hybridInfo,
			want: Cgroup{Unified: "/sys/fs/cgroup/unified", Mounts: map[string]string{
				"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
				"cpuset": "/sys/fs/cgroup/cpuset", "memory": "/sys/fs/cgroup/memory",
				"name=systemd": "/sys/fs/cgroup/systemd",
			}},
		},
		{
			name:   "the usual place is hidden",
			info:   "51 31 0:33 / /mnt/with\\040blank/memory rw - cgroup cgroup rw,memory\n52 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			hidden: "/sys/fs/cgroup/memory",
			want:   Cgroup{Mounts: map[string]string{"memory": "/mnt/with blank/memory"}},
		},
		{
			name: "pure v2",
			info: "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			want: Cgroup{Unified: "/sys/fs/cgroup", Mounts: map[string]string{}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			mounts, err := cgroupMounts([]byte(test.info))
			if err != nil {
				t.Fatal(err)
			}
			got := chooseMounts(mounts, func(m mount) bool { return m.point != test.hidden })
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCgroupMode(t *testing.T) {
	v1 := map[string]string{"memory": "/m"}
	for _, test := range []struct {
		name string
		cg   Cgroup
		want string
	}{
		{"v1 alone", Cgroup{Mounts: v1}, CgroupV1},
		{"v1 with an empty v2 mount", Cgroup{Mounts: v1, Unified: "/u"}, CgroupV1},
		{"hybrid", Cgroup{Mounts: v1, Unified: "/u", UnifiedControllers: []string{"hugetlb"}}, CgroupHybrid},
		{"v2 with a named v1", Cgroup{Mounts: map[string]string{"name=systemd": "/s"}, Unified: "/u", UnifiedControllers: []string{"cpu"}}, CgroupV2},
	} {
		if got := test.cg.mode(); got != test.want {
			t.Errorf("%s: %s", test.name, got)
		}
	}
}

func TestParseMountNamesBadLine(t *testing.T) {
	for _, line := range []string{"1 2 - cgroup", "1 2 a:b / /x rw - cgroup cgroup rw"} {
		if _, err := cgroupMounts([]byte(line)); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestParseOwn(t *testing.T) {
	got := parseOwn([]byte("9:name=systemd:/\n2:cpu,cpuacct:/a:b\n0::/user.slice\n"))
	want := map[string]string{"name=systemd": "/", "cpu": "/a:b", "cpuacct": "/a:b", "": "/user.slice"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRelease(t *testing.T) {
	for release, want := range map[string]Kernel{
		"6.18.44-vendor": {6, 18}, "6.19-rc1": {6, 19}, "5.15": {5, 15},
	} {
		if got, err := parseRelease(release); err != nil || got != want {
			t.Errorf("%s: %v, %v", release, got, err)
		}
	}
	if _, err := parseRelease("six"); err == nil {
		t.Error("a release without numbers was taken")
	}
	if k := (Kernel{6, 7}); !k.AtLeast(6, 7) || !k.AtLeast(5, 19) || k.AtLeast(6, 8) || k.AtLeast(7, 0) {
		t.Error("AtLeast compares wrongly")
	}
}

func TestHugepageName(t *testing.T) {
	for dir, want := range map[string]string{
		"hugepages-2048kB": "2MB", "hugepages-1048576kB": "1GB", "hugepages-64kB": "64KB", "other": "",
	} {
		if got, _ := hugepageName(dir); got != want {
			t.Errorf("%s: %q", dir, got)
		}
	}
}

// Reference must survive JSON, since plans and state keep facts as such.
func TestFactsJSON(t *testing.T) {
	data, err := json.Marshal(Reference())
	if err != nil {
		t.Fatal(err)
	}
	var back Facts
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Reference(), back); diff != "" {
		t.Error(diff)
	}
}

func TestProbe(t *testing.T) {
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, again); diff != "" {
		t.Errorf("two probes differ: %s", diff)
	}
	data, _ := json.MarshalIndent(f, "", " ")
	t.Logf("%s", data)
	if f.Kernel.Major == 0 || f.NofileHard == 0 || f.MemoryBytes == 0 || f.BootID == "" {
		t.Error("facts are missing")
	}
	if f.Cgroup.Mode != CgroupV1 && f.Cgroup.Unified == "" {
		t.Errorf("mode %s without a v2 mount", f.Cgroup.Mode)
	}
	if f.OverlayLowerdirPlus != f.AtLeast(6, 7) || f.OverlayLayerFD != f.AtLeast(6, 13) {
		t.Errorf("kernel %d.%d: lowerdir+ %v, layers by descriptor %v", f.Kernel.Major, f.Kernel.Minor, f.OverlayLowerdirPlus, f.OverlayLayerFD)
	}
	for controller, dir := range f.Cgroup.Mounts {
		if _, err := os.Stat(dir + "/tasks"); err != nil {
			t.Errorf("controller %s: %v", controller, err)
		}
	}
}

func FuzzCgroupMounts(f *testing.F) {
	f.Add([]byte(hybridInfo))
	f.Fuzz(func(t *testing.T, data []byte) {
		mounts, err := cgroupMounts(data)
		if err == nil {
			chooseMounts(mounts, func(mount) bool { return true })
		}
	})
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if _, err := Probe(); err != nil {
			b.Fatal(err)
		}
	}
}
