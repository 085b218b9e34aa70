package compile

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/host"
)

func sampleSpec(t testing.TB, name string) *specs.Spec {
	t.Helper()
	var s specs.Spec
	readJSON(t, filepath.Join("testdata", name, "config.json"), &s)
	return &s
}

func sampleOptions() Options {
	return Options{ID: "demo", Bundle: "/srv/bundle", Facts: host.Reference(), Seccomp: fakeSeccomp}
}

// TestReject: an error names the field that has to change.
func TestReject(t *testing.T) {
	bind := func(dest, source string, options ...string) func(*specs.Spec, *Options) {
		return func(s *specs.Spec, _ *Options) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Source: source, Type: "bind", Options: append([]string{"bind"}, options...)})
		}
	}
	ids := func(container, host, size uint32) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{ContainerID: container, HostID: host, Size: size}}
	}
	mapped := func(m specs.Mount) func(*specs.Spec, *Options) {
		m.Destination, m.Source, m.Options = "/x", "/srv", []string{"bind", "idmap"}
		return func(s *specs.Spec, _ *Options) { s.Mounts = append(s.Mounts, m) }
	}
	for _, tc := range []struct {
		name string
		do   func(*specs.Spec, *Options)
		want string
	}{
		{"no version", func(s *specs.Spec, _ *Options) { s.Version = "" }, "ociVersion: is missing"},
		{"bad version", func(s *specs.Spec, _ *Options) { s.Version = "one" }, `ociVersion: "one" is not a version`},
		{"next version", func(s *specs.Spec, _ *Options) { s.Version = "2.0.0" }, `ociVersion: "2.0.0"`},
		{"id leads out", func(_ *specs.Spec, o *Options) { o.ID = "../x" }, `id: "../x"`},
		{"no process", func(s *specs.Spec, _ *Options) { s.Process = nil }, "process: is missing"},
		{"no args", func(s *specs.Spec, _ *Options) { s.Process.Args = nil }, "process.args: is empty"},
		{"relative cwd", func(s *specs.Spec, _ *Options) { s.Process.Cwd = "x" }, `process.cwd: "x" is relative`},
		{"no cwd", func(s *specs.Spec, _ *Options) { s.Process.Cwd = "" }, "process.cwd: is empty"},
		{"NUL in args", func(s *specs.Spec, _ *Options) { s.Process.Args = []string{"a", "b\x00"} }, "process.args[1]: holds a NUL"},
		{"environment without =", func(s *specs.Spec, _ *Options) { s.Process.Env = []string{"A=1", "B"} }, `process.env[1]: "B"`},
		{"no root", func(s *specs.Spec, _ *Options) { s.Root = nil }, "root: is missing"},
		{"no root path", func(s *specs.Spec, _ *Options) { s.Root.Path = "" }, "root.path: is empty"},
		{"relative root", func(_ *specs.Spec, o *Options) { o.Bundle = "" }, `root.path: "rootfs" is relative`},
		{"host root", func(s *specs.Spec, _ *Options) { s.Root.Path = "/" }, "root.path: is the host's root"},
		{"unknown namespace", func(s *specs.Spec, _ *Options) { s.Linux.Namespaces[2].Type = "foo" }, `linux.namespaces[2].type: unknown "foo"`},
		{"namespace twice", func(s *specs.Spec, _ *Options) { s.Linux.Namespaces[2].Type = "pid" }, `linux.namespaces[2].type: "pid" is there twice`},
		{"relative namespace", func(s *specs.Spec, _ *Options) { s.Linux.Namespaces[1].Path = "x" }, `linux.namespaces[1].path: "x" is relative`},
		{"no mount namespace", func(s *specs.Spec, _ *Options) { s.Linux.Namespaces = s.Linux.Namespaces[:4] }, "a mount namespace is required"},
		{"kernel without cgroup namespaces", func(_ *specs.Spec, o *Options) { o.Facts.CgroupNS = false }, "linux.namespaces[5]: this kernel has no cgroup namespaces"},
		{"host name of the host", func(s *specs.Spec, _ *Options) { s.Linux.Namespaces = s.Linux.Namespaces[4:] }, `hostname: "runc" cannot be set`},
		{"time offsets", func(s *specs.Spec, _ *Options) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1}}
		}, "linux.timeOffsets: need a new time namespace"},
		{"map without namespace", func(s *specs.Spec, _ *Options) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }, "linux.uidMappings: mean nothing"},
		{"user namespace without maps", func(s *specs.Spec, _ *Options) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		}, "linux.uidMappings: are missing"},
		{"no user", func(s *specs.Spec, _ *Options) { s.Process.User.UID = math.MaxUint32 }, "process.user.uid: 4294967295 is not an id"},
		{"no group", func(s *specs.Spec, _ *Options) { s.Process.User.GID = math.MaxUint32 }, "process.user.gid: 4294967295 is not an id"},
		{"no further group", func(s *specs.Spec, _ *Options) { s.Process.User.AdditionalGids = []uint32{1, math.MaxUint32} }, "process.user.additionalGids: 4294967295 is not an id"},
		{"rlimit", func(s *specs.Spec, _ *Options) { s.Process.Rlimits[0].Type = "NOFILE" }, `process.rlimits[0].type: unknown "NOFILE"`},
		{"rlimit soft", func(s *specs.Spec, _ *Options) { s.Process.Rlimits[0].Soft = 2000 }, "process.rlimits[0].soft: 2000 is more than hard, 1024"},
		{"rlimit twice", func(s *specs.Spec, _ *Options) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0]) }, "process.rlimits[1].type: RLIMIT_NOFILE is there twice"},
		{"io priority", func(s *specs.Spec, _ *Options) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}, "process.ioPriority.priority: 8"},
		{"AppArmor", func(s *specs.Spec, _ *Options) { s.Process.ApparmorProfile = "p" }, `process.apparmorProfile: "p"`},
		{"SELinux", func(s *specs.Spec, _ *Options) { s.Linux.MountLabel = "l" }, `linux.mountLabel: "l"`},
		{"over proc", bind("/proc/self/attr", "/srv"), "lies inside /proc"},
		{"onto proc", bind("/proc", "/srv"), "only procfs can be mounted on /proc"},
		{"onto proc by ..", bind("/x/../proc/1", "/srv"), "lies inside /proc"},
		{"onto the root", bind("/", "/srv"), "mounts[7].destination: is the root itself"},
		{"bind of nothing", bind("/x", ""), "mounts[7].source: is empty"},
		{"idmap of nothing", bind("/x", "/srv", "idmap"), "mounts[7].uidMappings: are missing"},
		{"idmap of uids only", mapped(specs.Mount{UIDMappings: ids(0, 1, 2)}), "mounts[7].gidMappings: are missing"},
		{"idmap that overlaps", mapped(specs.Mount{UIDMappings: ids(0, 1, 2), GIDMappings: append(ids(0, 10, 2), ids(5, 11, 1)...)}), "mounts[7].gidMappings[1]: overlaps with range 0"},
		{"idmap of an empty range", mapped(specs.Mount{UIDMappings: ids(0, 1, 0), GIDMappings: ids(0, 1, 1)}), "mounts[7].uidMappings[0].size: is 0"},
		{"idmap on an old kernel", func(s *specs.Spec, o *Options) {
			mapped(specs.Mount{UIDMappings: ids(0, 1, 2), GIDMappings: ids(0, 1, 2)})(s, o)
			o.Facts.IdmapMounts = false
		}, "mounts[7].uidMappings: this kernel has no idmapped mounts"},
		{"idmap without privileges", func(s *specs.Spec, o *Options) {
			mapped(specs.Mount{UIDMappings: ids(0, 1, 2), GIDMappings: ids(0, 1, 2)})(s, o)
			o.Facts.Caps = 0
		}, "mounts[7].uidMappings: idmapped mounts take privileges"},
		{"limit without a cgroup", func(s *specs.Spec, o *Options) {
			s.Linux.Resources, o.NoCgroup = &specs.LinuxResources{Pids: &specs.LinuxPids{}}, true
		}, "linux.resources.pids: cannot set pids limit: container could not join or create cgroup"},
		{"tmpcopyup of a bind", bind("/x", "/srv", "tmpcopyup"), "mounts[7].options: tmpcopyup is for a new tmpfs only"},
		{"tmpcopyup of sysfs", func(s *specs.Spec, _ *Options) { s.Mounts[5].Options = []string{"tmpcopyup"} }, "mounts[5].options: tmpcopyup is for a new tmpfs only"},
		{"mount without type", func(s *specs.Spec, _ *Options) { s.Mounts[1].Type = "" }, "mounts[1].type: is empty"},
		{"cgroup of all", func(s *specs.Spec, _ *Options) { s.Linux.CgroupsPath = "/" }, "linux.cgroupsPath: is the root"},
		{"cgroup leads out", func(s *specs.Spec, _ *Options) { s.Linux.CgroupsPath = "/a/../../b" }, "linux.cgroupsPath:"},
		{"sysctl of the host", func(s *specs.Spec, _ *Options) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, `linux.sysctl["vm.swappiness"]: belongs to no namespace`},
		{"sysctl by ..", func(s *specs.Spec, _ *Options) { s.Linux.Sysctl = map[string]string{"net/../vm/swappiness": "1"} }, "is not the name of a kernel parameter"},
		{"sysctl host name", func(s *specs.Spec, _ *Options) { s.Linux.Sysctl = map[string]string{"kernel.hostname": "x"} }, "is set by the field hostname"},
		{"device type", func(s *specs.Spec, _ *Options) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }, `linux.devices[0].type: unknown "z"`},
		{"device path", func(s *specs.Spec, _ *Options) { s.Linux.Devices = []specs.LinuxDevice{{Path: "x", Type: "c"}} }, `linux.devices[0].path: "x"`},
		{"masked", func(s *specs.Spec, _ *Options) { s.Linux.MaskedPaths = []string{"x"} }, `linux.maskedPaths[0]: "x" is relative`},
		{"propagation", func(s *specs.Spec, _ *Options) { s.Linux.RootfsPropagation = "x" }, `linux.rootfsPropagation: unknown "x"`},
		{"hook path", func(s *specs.Spec, _ *Options) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }, `hooks.poststop[0].path: "x" is relative`},
		{"hook timeout", func(s *specs.Spec, _ *Options) {
			s.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: "/x", Timeout: new(int)}}}
		}, "hooks.prestart[0].timeout: 0"},
		{"seccomp notify alone", func(s *specs.Spec, _ *Options) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
		}, "linux.seccomp.listenerPath: is missing"},
		{"seccomp without compiler", func(s *specs.Spec, o *Options) { s.Linux.Seccomp, o.Seccomp = &specs.LinuxSeccomp{}, nil }, "linux.seccomp:"},
		{"overlay without layers", func(_ *specs.Spec, o *Options) { o.Rootfs = Rootfs{Upper: "/u", Work: "/w"} }, "rootfs: has no layers"},
		{"too many mounts", func(s *specs.Spec, o *Options) {
			o.PrivateDir = "/run/cri-mini/pods"
			for range 2000 {
				bind("/x", "/run/cri-mini/pods/x")(s, o)
			}
		}, "too many mounts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, o := sampleSpec(t, "command-default"), sampleOptions()
			tc.do(s, &o)
			if _, err := Container(s, o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Container() = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// TestRejectField: the same for the fields that only few containers have.
func TestRejectField(t *testing.T) {
	scheduler := func(c specs.Scheduler) func(*specs.Spec) { return func(s *specs.Spec) { s.Process.Scheduler = &c } }
	affinity := func(initial, final string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: initial, Final: final} }
	}
	policy := func(mode specs.MemoryPolicyModeType, nodes string, flags ...specs.MemoryPolicyFlagType) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: mode, Nodes: nodes, Flags: flags}
		}
	}
	devices := func(d map[string]specs.LinuxNetDevice) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.NetDevices = d }
	}
	resctrl := func(r specs.LinuxIntelRdt) func(*specs.Spec) { return func(s *specs.Spec) { s.Linux.IntelRdt = &r } }
	for _, tc := range []struct {
		name string
		do   func(*specs.Spec)
		want string
	}{
		{"scheduler", scheduler(specs.Scheduler{Policy: "X"}), `process.scheduler.policy: unknown "X"`},
		{"scheduler flag", scheduler(specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"X"}}), `process.scheduler.flags[0]: unknown "X"`},
		{"too nice", scheduler(specs.Scheduler{Policy: specs.SchedOther, Nice: 20}), "process.scheduler.nice: 20 is not between"},
		{"FIFO without priority", scheduler(specs.Scheduler{Policy: specs.SchedFIFO}), "process.scheduler.priority: 0 is not between 1 and 99"},
		{"priority of others", scheduler(specs.Scheduler{Policy: specs.SchedBatch, Priority: 1}), "process.scheduler.priority: 1 means nothing to SCHED_BATCH"},
		{"runtime of others", scheduler(specs.Scheduler{Policy: specs.SchedOther, Runtime: 1}), "process.scheduler.runtime: with deadline and period means nothing to SCHED_OTHER"},
		{"personality", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "X"} }, `linux.personality.domain: unknown "X"`},
		{"personality flag", func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"X"}}
		}, `linux.personality.flags[0]: unknown "X"`},
		{"affinity, no list", affinity("0-", ""), `process.execCPUAffinity.initial: "0-" is not a list such as 0-3,7`},
		{"affinity, backwards", affinity("", "3-1"), `process.execCPUAffinity.final: "3-1": the range 3-1 runs backwards`},
		{"affinity, no such processor", affinity("", "0-8192"), "8192 is beyond the kernel's last, 8191"},
		{"memory policy", policy("X", ""), `linux.memoryPolicy.mode: unknown "X"`},
		{"memory policy without nodes", policy(specs.MpolBind, ""), "linux.memoryPolicy.nodes: is empty: MPOL_BIND needs at least one"},
		{"memory policy with nodes", policy(specs.MpolLocal, "0"), `linux.memoryPolicy.nodes: "0": MPOL_LOCAL takes no nodes`},
		{"memory policy, no list", policy(specs.MpolBind, "a"), `linux.memoryPolicy.nodes: "a" is not a list`},
		{"memory policy, unknown flag", policy(specs.MpolBind, "0", "X"), `linux.memoryPolicy.flags[0]: unknown "X"`},
		{"memory policy, flags that exclude", policy(specs.MpolBind, "0", specs.MpolFStaticNodes, specs.MpolFRelativeNodes), "linux.memoryPolicy.flags: MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES"},
		{"memory policy, flag without nodes", policy(specs.MpolPreferred, "", specs.MpolFStaticNodes), "linux.memoryPolicy.flags: say how to read nodes"},
		{"device for the host", func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}}
			s.Linux.Namespaces = append(s.Linux.Namespaces[:1:1], s.Linux.Namespaces[2:]...)
		}, "linux.netDevices: need a network namespace"},
		{"device without name", devices(map[string]specs.LinuxNetDevice{"": {}}), `linux.netDevices[""]: is not the name of a network device`},
		{"device pattern", devices(map[string]specs.LinuxNetDevice{"eth%d": {}}), `linux.netDevices["eth%d"]: is not the name`},
		{"device name", devices(map[string]specs.LinuxNetDevice{"eth0": {Name: "sixteen-letters!"}}), `linux.netDevices["eth0"].name: "sixteen-letters!" is not the name`},
		{"device name pattern", devices(map[string]specs.LinuxNetDevice{"eth0": {Name: "a%sb"}}), `linux.netDevices["eth0"].name: "a%sb" is not the name`},
		{"two devices, one name", devices(map[string]specs.LinuxNetDevice{"eth0": {Name: "eth1"}, "eth1": {}}), `linux.netDevices["eth1"].name: "eth1" is the name of eth0 too`},
		{"class that leads out", resctrl(specs.LinuxIntelRdt{ClosID: "../x"}), `linux.intelRdt.closID: "../x" is not the name of a group`},
		{"class of the kernel's", resctrl(specs.LinuxIntelRdt{ClosID: "info"}), `linux.intelRdt.closID: "info" is not the name of a group`},
		{"schema of two lines", resctrl(specs.LinuxIntelRdt{Schemata: []string{"L3:0=1", "a\nb"}}), "linux.intelRdt.schemata[1]:"},
		{"schema of bandwidth", resctrl(specs.LinuxIntelRdt{MemBwSchema: "L3:0=1"}), `linux.intelRdt.memBwSchema: "L3:0=1" does not begin with MB:`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, o := sampleSpec(t, "command-default"), sampleOptions()
			o.Facts.Resctrl = "/sys/fs/resctrl"
			tc.do(s)
			if _, err := Container(s, o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Container() = %v, want an error with %q", err, tc.want)
			}
		})
	}
	s := sampleSpec(t, "command-default")
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{}
	if _, err := Container(s, sampleOptions()); err == nil || !strings.Contains(err.Error(), "linux.intelRdt: this machine has no resctrl file system mounted") {
		t.Errorf("Container() = %v, want an error that names the missing resctrl", err)
	}
}

func TestRejectInUserNamespace(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(*specs.Spec)
		want string
	}{
		{"shared", func(s *specs.Spec) { s.Mounts[8].Options = []string{"rbind", "rshared"} }, "mounts[8].options: shared propagation"},
		{"mapped tmpfs", func(s *specs.Spec) { s.Mounts[1].UIDMappings = s.Linux.UIDMappings }, "mounts[1].uidMappings: are for bind mounts and for overlays without"},
		{"unmapped user", func(s *specs.Spec) { s.Process.User.UID = 70000 }, "process.user.uid: 70000 is not in linux.uidMappings"},
		{"unmapped group", func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{70000} }, "process.user.additionalGids[0]: 70000"},
		{"root unmapped", func(s *specs.Spec) { s.Linux.UIDMappings[0].ContainerID = 1 }, "linux.uidMappings: leave id 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, o := sampleSpec(t, "userns-binds"), sampleOptions()
			tc.do(s)
			if _, err := Container(s, o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Container() = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestRejectPodAndExec(t *testing.T) {
	o := sampleOptions()
	o.RunDir = "/run/cri-mini"
	pod := func(types ...specs.LinuxNamespaceType) *specs.Spec {
		s := &specs.Spec{Version: specs.Version, Linux: &specs.Linux{}}
		for _, typ := range types {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: typ})
		}
		return s
	}
	for _, tc := range []struct {
		name string
		do   func() error
		want string
	}{
		{"pod with mount namespace", func() error { _, err := Pod(pod("mount"), o); return err }, "mount and cgroup namespaces"},
		{"pod with time namespace", func() error { _, err := Pod(pod("time"), o); return err }, "linux.namespaces[0]: not supported yet"},
		{"pod with another mount", func() error {
			s := pod("ipc")
			s.Mounts = []specs.Mount{{Destination: "/x", Type: "tmpfs"}}
			_, err := Pod(s, o)
			return err
		}, "mounts[0]: a pod has a tmpfs at /dev/shm only"},
		{"exec of nothing", func() error { _, err := Exec(sampleSpec(t, "exec"), nil, o); return err }, "process: is missing"},
		{"exec without args", func() error { _, err := Exec(sampleSpec(t, "exec"), &specs.Process{Cwd: "/"}, o); return err }, "process.args: is empty"},
		{"no spec", func() error { _, err := Container(nil, o); return err }, "config.json: is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.do(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// TestWarn: what cannot be given is left out and said.
func TestWarn(t *testing.T) {
	s, o := sampleSpec(t, "command-default"), sampleOptions()
	var said []string
	o.Warn = func(w string) { said = append(said, w) }
	score := -500
	s.Process.OOMScoreAdj = &score
	s.Process.Capabilities.Bounding = []string{"CAP_SYS_RESOURCE", "CAP_NONE", "CAP_KILL"}
	s.Mounts[4].Destination = "mq"
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/b", Source: "/etc", Options: []string{"bind", "ro", "mode=755"}})
	p, err := Container(s, o)
	if err != nil {
		t.Fatal(err)
	}
	text := p.String()
	for _, want := range []string{"oom_score_adj   value=0", "bounding        caps=kill\n", "target=/mq "} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan lacks %q", want)
		}
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{"process.oomScoreAdj: -500", `process.capabilities.bounding[0]: "CAP_SYS_RESOURCE"`, `bounding[1]: "CAP_NONE"`, "mounts[4].destination", `mounts[7].options: "mode" means nothing for a bind mount`} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning has %q:\n%s", want, all)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward":                   "net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.100/forwarding":     "net/ipv4/conf/eth0.100/forwarding",
		"net.ipv4.conf.eth0/100.forwarding":     "net/ipv4/conf/eth0.100/forwarding",
		"net/netfilter/nf_conntrack_max":        "net/netfilter/nf_conntrack_max",
		"net.netfilter.nf_log.2":                "net/netfilter/nf_log/2",
		"kernel":                                "kernel",
		"kernel/shm_rmid_forced":                "kernel/shm_rmid_forced",
		"net.ipv4.neigh.bond0/20.proxy_delay":   "net/ipv4/neigh/bond0.20/proxy_delay",
		"net.ipv6.conf.all.disable_ipv6":        "net/ipv6/conf/all/disable_ipv6",
		"net/ipv4/neigh/enp3s0.200/proxy_delay": "net/ipv4/neigh/enp3s0.200/proxy_delay",
	} {
		if got := sysctlPath(key); got != want {
			t.Errorf("sysctlPath(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestSystemdPaths(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "/demo",
		"a/b":                             "/a/b",
		"system.slice:runc:x":             "/system.slice/runc-x.scope",
		"kubepods-besteffort.slice::x":    "/kubepods.slice/kubepods-besteffort.slice/x.scope",
		"a-b-c.slice:p:leaf.slice":        "/a.slice/a-b.slice/a-b-c.slice/leaf.slice",
		"/not:a:unit":                     "/not:a:unit",
		"kubepods-podab_cd.slice:cri:0f1": "/kubepods.slice/kubepods-podab_cd.slice/cri-0f1.scope",
	} {
		b := &builder{o: Options{ID: "demo"}, spec: &specs.Spec{Linux: &specs.Linux{CgroupsPath: in}}}
		if got, err := b.cgroupPath(); err != nil || got != want {
			t.Errorf("cgroupPath(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		env        []string
		want       string
	}{
		{"with a slash", "./x/y", nil, "./x/y"},
		{"default", "sh", nil, "/usr/local/sbin/sh /usr/local/bin/sh /usr/sbin/sh /usr/bin/sh /sbin/sh /bin/sh"},
		{"own path", "sh", []string{"PATH=/a::/b/:/a"}, "/a/sh ./sh /b/sh"},
		{"empty path", "sh", []string{"PATH="}, "/usr/local/sbin/sh /usr/local/bin/sh /usr/sbin/sh /usr/bin/sh /sbin/sh /bin/sh"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(candidates(tc.file, tc.env), " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzContainer: no config.json makes the compiler panic, and what it accepts is a sound plan.
func FuzzContainer(f *testing.F) {
	for _, pattern := range []string{"testdata/*/config.json", ociCases + "/*/config.json"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, false)
			f.Add(data, true)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, daemon bool) {
		var spec specs.Spec
		if json.Unmarshal(data, &spec) != nil {
			return
		}
		o := sampleOptions()
		if daemon {
			o.PrivateDir, o.RunDir, o.Stage, o.Stdio = "/run/cri-mini/pods", "/run/cri-mini", "/run/cri-mini/stage", Stdio{Dir: "/run/x", Stdin: true}
			o.Rootfs = Rootfs{Lower: []string{"/l"}, Upper: "/c/u", Work: "/c/w"}
		} else {
			o.Command, o.Gate, o.PreserveFDs = true, "/run/gate", 2
		}
		if p, err := Container(&spec, o); err == nil {
			if err := p.Check(); err != nil {
				t.Error(err)
			}
		}
		o.RunDir = "/run/cri-mini"
		if p, err := Pod(&spec, o); err == nil {
			if err := p.Check(); err != nil {
				t.Error(err)
			}
		}
		if p, err := Exec(&spec, spec.Process, o); err == nil {
			if err := p.Check(); err != nil {
				t.Error(err)
			}
		}
	})
}

// The mapping's last id is 2^32-2: 2^32-1 means "no id" to the kernel.
func TestMappingBounds(t *testing.T) {
	ok := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: math.MaxUint32}}
	if err := checkMapping("f", ok, true); err != nil {
		t.Error(err)
	}
	bad := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: math.MaxUint32}}
	if err := checkMapping("f", bad, true); err == nil {
		t.Error("a range beyond the last id was accepted")
	}
}
