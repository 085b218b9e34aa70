package oci

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/profiles/seccomp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

func mustContainer(t *testing.T, in ContainerInput) *specs.Spec {
	t.Helper()
	s, err := Container(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestArgs(t *testing.T) {
	image := ispec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	for _, tt := range []struct {
		name          string
		command, args []string
		want          string
	}{
		{"nothing", nil, nil, "entry cmd"},
		{"args", nil, []string{"a"}, "entry a"},
		{"command", []string{"c"}, nil, "c"},
		{"both", []string{"c"}, []string{"a"}, "c a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t)
			in.Image.Config = image
			in.Config.Command, in.Config.Args = tt.command, tt.args
			if got := strings.Join(mustContainer(t, in).Process.Args, " "); got != tt.want {
				t.Errorf("args %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEnv(t *testing.T) {
	in := input(t)
	in.Image.Config.Env = []string{"A=1", "noequals", "=x", "B=b=b", "TERM=vt100"}
	in.Config.Tty = true
	in.Config.Envs = []*criapi.KeyValue{{Key: "A", Value: []byte("2")}, {Key: "EMPTY"}, {Key: "HOME", Value: []byte("/h")}}
	want := []string{"PATH=" + defaultPath, "TERM=vt100", "HOSTNAME=web", "A=2", "B=b=b", "EMPTY=", "HOME=/h"}
	if d := cmp.Diff(want, mustContainer(t, in).Process.Env); d != "" {
		t.Errorf("env (-want +got):\n%s", d)
	}
}

func TestCapabilities(t *testing.T) {
	def := defaultCaps.names()
	without := func(drop string) []string {
		return slices.DeleteFunc(slices.Clone(def), func(s string) bool { return s == drop })
	}
	reference := host.Reference()
	own := (capSet(reference.Caps) & (1<<41 - 1)).names()
	for _, tt := range []struct {
		name          string
		caps          *criapi.Capability
		privileged    bool
		userns        bool
		want, ambient []string
	}{
		{name: "default", want: def},
		{name: "drop one", caps: &criapi.Capability{DropCapabilities: []string{"net_raw"}}, want: without("CAP_NET_RAW")},
		{name: "drop all", caps: &criapi.Capability{DropCapabilities: []string{"ALL"}}},
		{name: "drop all, add one", caps: &criapi.Capability{DropCapabilities: []string{"all"}, AddCapabilities: []string{"CAP_CHOWN"}}, want: []string{"CAP_CHOWN"}},
		{name: "add all", caps: &criapi.Capability{AddCapabilities: []string{"ALL"}}, want: own},
		{name: "drop wins", caps: &criapi.Capability{AddCapabilities: []string{"CHOWN"}, DropCapabilities: []string{"CHOWN"}}, want: without("CAP_CHOWN")},
		{name: "ambient", caps: &criapi.Capability{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"KILL"}}, want: []string{"CAP_KILL"}, ambient: []string{"CAP_KILL"}},
		{name: "ambient beside added", caps: &criapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CHOWN", "KILL"}, AddAmbientCapabilities: []string{"cap_kill"}}, want: []string{"CAP_CHOWN", "CAP_KILL"}, ambient: []string{"CAP_KILL"}},
		{name: "drop wins over ambient", caps: &criapi.Capability{DropCapabilities: []string{"KILL"}, AddAmbientCapabilities: []string{"KILL"}}, want: without("CAP_KILL")},
		{name: "all ambient", caps: &criapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CHOWN"}, AddAmbientCapabilities: []string{"ALL"}}, want: []string{"CAP_CHOWN"}, ambient: []string{"CAP_CHOWN"}},
		{name: "privileged", privileged: true, caps: &criapi.Capability{DropCapabilities: []string{"ALL", "CHOWN"}}, want: own},
		{name: "all in a user namespace", userns: true, caps: &criapi.Capability{AddCapabilities: []string{"ALL"}}, want: capNames},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t)
			if tt.userns {
				withUserns(&in)
			}
			in.Pod.Linux.SecurityContext.Privileged = tt.privileged
			in.Config.Linux.SecurityContext = &ctxt{Privileged: tt.privileged, Capabilities: tt.caps}
			got := mustContainer(t, in).Process.Capabilities
			want := &specs.LinuxCapabilities{Bounding: tt.want, Effective: tt.want, Permitted: tt.want, Inheritable: tt.ambient, Ambient: tt.ambient}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("capabilities (-want +got):\n%s", d)
			}
		})
	}
}

// TestSeccompMatchesItsSource compares our evaluation of the default profile
// with its package's own, which asks this machine.
func TestSeccompMatchesItsSource(t *testing.T) {
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"}} {
		s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
		want, err := seccomp.GetDefaultProfile(s)
		if err != nil {
			t.Fatal(err)
		}
		facts := host.Facts{Arch: runtime.GOARCH, Kernel: host.Kernel{Major: 6, Minor: 1}}
		if d := cmp.Diff(want, resolveSeccomp(seccomp.DefaultProfile(), caps, facts)); d != "" {
			t.Errorf("with %v (-want +got):\n%s", caps, d)
		}
	}
}

func TestSeccompConditions(t *testing.T) {
	profile := `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],"syscalls":[
		{"name":"old","action":"SCMP_ACT_ALLOW"},
		{"names":["new"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.2"}},
		{"names":["before"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"6.2"}},
		{"names":["x86"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","x86"]}},
		{"names":["chown"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_CHOWN"]}},
		{"names":["nochown"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_CHOWN"]}}]}`
	var p seccomp.Seccomp
	if err := json.Unmarshal([]byte(profile), &p); err != nil {
		t.Fatal(err)
	}
	facts := host.Facts{Arch: "arm64", Kernel: host.Kernel{Major: 6, Minor: 1}}
	got := resolveSeccomp(&p, []string{"CAP_CHOWN"}, facts)
	var names []string
	for _, s := range got.Syscalls {
		names = append(names, s.Names...)
	}
	if d := cmp.Diff([]string{"old", "before", "chown"}, names); d != "" {
		t.Errorf("rules (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]specs.Arch{specs.ArchAARCH64, specs.ArchARM}, got.Architectures); d != "" {
		t.Errorf("architectures (-want +got):\n%s", d)
	}
}

func TestProfiles(t *testing.T) {
	local := func(ref string) *criapi.SecurityProfile {
		return &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: ref}
	}
	unconfined := &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Unconfined}
	for _, tt := range []struct {
		name       string
		sc         *ctxt
		with       bool // AppArmor and SELinux on the node
		privileged bool
		apparmor   string
		selinux    string
	}{
		{name: "nothing, without"},
		{name: "nothing, with", with: true, apparmor: DefaultAppArmor},
		{name: "unconfined", with: true, sc: &ctxt{Apparmor: unconfined}},
		{name: "localhost", with: true, sc: &ctxt{Apparmor: local("localhost/p")}, apparmor: "p"},
		{name: "field over string", with: true, sc: &ctxt{Apparmor: local("p"), ApparmorProfile: "localhost/q"}, apparmor: "p"},
		{name: "string", with: true, sc: &ctxt{ApparmorProfile: "localhost/q"}, apparmor: "q"},
		{name: "default without", sc: &ctxt{Apparmor: &criapi.SecurityProfile{}, SelinuxOptions: &criapi.SELinuxOption{Level: "s0"}}},
		{name: "privileged", with: true, privileged: true, sc: &ctxt{Privileged: true, Apparmor: local("p"), SelinuxOptions: &criapi.SELinuxOption{Level: "s0"}}},
		{name: "selinux", with: true, sc: &ctxt{Apparmor: unconfined, SelinuxOptions: &criapi.SELinuxOption{Level: "s0:c1,c2"}}, selinux: "system_u:system_r:container_t:s0:c1,c2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t)
			in.Facts.AppArmor, in.Facts.SELinux = tt.with, tt.with
			in.Pod.Linux.SecurityContext.Privileged = tt.privileged
			in.Config.Linux.SecurityContext = tt.sc
			s := mustContainer(t, in)
			if got := s.Process.ApparmorProfile; got != tt.apparmor {
				t.Errorf("apparmor %q, want %q", got, tt.apparmor)
			}
			if got := s.Process.SelinuxLabel; got != tt.selinux {
				t.Errorf("selinux %q, want %q", got, tt.selinux)
			}
			if s.Linux.Seccomp != nil {
				t.Error("seccomp filter that nobody asked for")
			}
		})
	}
}

func TestMaskedPathsUnmasked(t *testing.T) {
	in := input(t)
	if s := mustContainer(t, in); len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 {
		t.Error("no default masked or read-only paths")
	}
	withUserns(&in)
	if s := mustContainer(t, in); len(s.Linux.MaskedPaths) != 0 || len(s.Linux.ReadonlyPaths) != 0 {
		t.Error("procMount Unmasked in a user namespace still masks")
	}
}

func TestMountsOfOneThing(t *testing.T) {
	find := func(s *specs.Spec, dest string) (list []specs.Mount) {
		for _, m := range s.Mounts {
			if m.Destination == dest {
				list = append(list, m)
			}
		}
		return list
	}
	t.Run("the node's dev hides ours", func(t *testing.T) {
		in := input(t)
		in.Config.Mounts = []*criapi.Mount{{ContainerPath: "/dev/", HostPath: "/dev"}}
		s := mustContainer(t, in)
		if got := find(s, "/dev"); len(got) != 1 || got[0].Source != "/dev" {
			t.Errorf("/dev: %v", got)
		}
		if got := find(s, "/dev/pts"); got != nil {
			t.Errorf("/dev/pts: %v", got)
		}
	})
	t.Run("sysfs in a user namespace on the node's network", func(t *testing.T) {
		in := input(t)
		withUserns(&in)
		in.Pod.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
		got := find(mustContainer(t, in), "/sys")
		if len(got) != 1 || got[0].Type != "bind" || !slices.Contains(got[0].Options, "rro") {
			t.Errorf("/sys: %v", got)
		}
	})
	t.Run("tty group unmapped", func(t *testing.T) {
		in := input(t)
		m := []*criapi.IDMapping{{HostId: 100000, Length: 4}}
		in.Pod.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Uids: m, Gids: m}
		if got := find(mustContainer(t, in), "/dev/pts"); slices.Contains(got[0].Options, "gid=5") {
			t.Errorf("/dev/pts: %v", got)
		}
	})
	t.Run("a device elsewhere in a user namespace", func(t *testing.T) {
		in := input(t)
		withUserns(&in)
		in.Devices = []NodeDevice{{Path: "/dev/snd/a", Type: "c", Major: 116, Minor: 1}, {Path: "/dev/sndx", Type: "c"}}
		in.Config.Devices = []*criapi.Device{{HostPath: "/dev/snd", ContainerPath: "/dev/sound", Permissions: "rw"}}
		s := mustContainer(t, in)
		if got := find(s, "/dev/sound/a"); len(got) != 1 || got[0].Source != "/dev/snd/a" || len(s.Linux.Devices) != 0 {
			t.Errorf("mounts %v, devices %v", got, s.Linux.Devices)
		}
	})
	t.Run("read-only root", func(t *testing.T) {
		in := input(t)
		in.Config.Linux.SecurityContext.ReadonlyRootfs = true
		s := mustContainer(t, in)
		if !s.Root.Readonly || !slices.Contains(find(s, "/etc/hosts")[0].Options, "ro") {
			t.Errorf("root %v, hosts %v", s.Root, find(s, "/etc/hosts"))
		}
	})
}

func TestPodPIDFollowsThePod(t *testing.T) {
	pid := func(in ContainerInput) *specs.LinuxNamespace {
		for _, n := range mustContainer(t, in).Linux.Namespaces {
			if n.Type == specs.PIDNamespace {
				return &n
			}
		}
		return nil
	}
	in := input(t) // the pod: CONTAINER
	in.Config.Linux.SecurityContext = nil
	if n := pid(in); n == nil || n.Path != "" {
		t.Errorf("unset in a pod that shares none: %v, want its own", n)
	}
	in.Pod.Linux.SecurityContext = nil
	if n := pid(in); n == nil || n.Path != "/run/cri-mini/pods/"+in.PodID+"/ns/pid" {
		t.Errorf("unset in a pod that shares: %v, want the pod's", n)
	}
	in.Pod.Linux.SecurityContext = &criapi.LinuxSandboxSecurityContext{NamespaceOptions: &nsopt{Pid: 2}}
	if n := pid(in); n != nil {
		t.Errorf("unset in a pod on the node's: %v, want the node's", n)
	}
}

func TestResources(t *testing.T) {
	facts := host.Reference()
	got, err := Resources(nil, facts)
	if err != nil || got != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
	facts.Cgroup.UnifiedControllers = []string{"memory"}
	facts.SwapAccounting = false
	got, err = Resources(&criapi.LinuxContainerResources{
		MemoryLimitInBytes: 1 << 20, CpusetCpus: "0-1,3",
		HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB"}, {PageSize: "64KB"}},
		Unified:        map[string]string{"memory.high": "1000"},
	}, facts)
	limit := int64(1 << 20)
	want := &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Cpus: "0-1,3"}, Memory: &specs.LinuxMemory{Limit: &limit},
		Unified: map[string]string{"memory.high": "1000"},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, d)
	}
}

func TestAnnotationsCannotBeForged(t *testing.T) {
	in := input(t)
	in.Config.Annotations = map[string]string{AnnotationOOMScoreAdj: "-5", AnnotationType: "sandbox", "a": "b"}
	a := mustContainer(t, in).Annotations
	if _, ok := a[AnnotationOOMScoreAdj]; ok || a[AnnotationType] != "container" || a["a"] != "b" {
		t.Errorf("annotations %v", a)
	}
}

func TestExecSharesNothing(t *testing.T) {
	s := mustContainer(t, input(t))
	before, _ := json.Marshal(s)
	p := Exec(s, ExecInput{Cmd: []string{"sh"}, TTY: true})
	p.Env[0], p.Capabilities.Bounding[0], p.User.AdditionalGids[0], *p.OOMScoreAdj = "x", "x", 9, 9
	if after, _ := json.Marshal(s); string(after) != string(before) {
		t.Error("changing the exec's process changed the container's spec")
	}
	if err := (ExecInput{}).Check(); err == nil || err.Error() != "exec: cmd: is empty" {
		t.Errorf("empty exec: %v", err)
	}
}

func BenchmarkContainer(b *testing.B) {
	in := ContainerInput{
		ID: "c", PodID: "p", Facts: host.Reference(),
		Pod: &criapi.PodSandboxConfig{Metadata: &criapi.PodSandboxMetadata{Name: "p"}},
		Config: &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: "c"}, Command: []string{"true"},
			Linux: &criapi.LinuxContainerConfig{SecurityContext: &ctxt{Seccomp: &criapi.SecurityProfile{}}},
		},
	}
	for b.Loop() {
		if _, err := Container(in); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSELinuxLabels: what the container says wins, then the pod, then the defaults with the pod's own categories.
func TestSELinuxLabels(t *testing.T) {
	type opt = criapi.SELinuxOption
	for _, tt := range []struct {
		name       string
		pod, ctr   *opt
		privileged bool
		process    string
		mount      string
		err        string
	}{
		{name: "nothing said", process: "system_u:system_r:container_t:s0:c1,c2", mount: "system_u:object_r:container_file_t:s0:c1,c2"},
		{name: "the pod's level", pod: &opt{Level: "s0:c8,c9"}, process: "system_u:system_r:container_t:s0:c8,c9", mount: "system_u:object_r:container_file_t:s0:c8,c9"},
		{name: "the container's type with the pod's level", pod: &opt{Level: "s0:c8,c9"}, ctr: &opt{Type: "svirt_t"}, process: "system_u:system_r:svirt_t:s0:c8,c9", mount: "system_u:object_r:container_file_t:s0:c8,c9"},
		{name: "all", ctr: &opt{User: "u_u", Role: "r_r", Type: "t_t", Level: "s0-s0:c0.c1023"}, process: "u_u:r_r:t_t:s0-s0:c0.c1023", mount: "u_u:object_r:container_file_t:s0-s0:c0.c1023"},
		{name: "privileged", privileged: true, mount: "system_u:object_r:container_file_t:s0:c1,c2"},
		{name: "bad level", ctr: &opt{Level: "s0,c4,c5"}, err: `container config: linux.security_context.selinux_options.level: "s0,c4,c5" is not a level such as "s0:c4,c5"`},
		{name: "type with a colon", ctr: &opt{Type: "a:b"}, err: `container config: linux.security_context.selinux_options.type: "a:b" is not a name`},
		{name: "bad level of the pod", pod: &opt{Level: "high"}, err: `pod config: linux.security_context.selinux_options.level: "high" is not a level such as "s0:c4,c5"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t)
			in.Facts.SELinux, in.SELinuxLevel = true, "s0:c1,c2"
			in.Pod.Linux.SecurityContext.SelinuxOptions, in.Pod.Linux.SecurityContext.Privileged = tt.pod, tt.privileged
			in.Config.Linux.SecurityContext.SelinuxOptions, in.Config.Linux.SecurityContext.Privileged = tt.ctr, tt.privileged
			s, err := Container(in)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Process.SelinuxLabel != tt.process || s.Linux.MountLabel != tt.mount {
				t.Errorf("process %q, mounts %q; want %q, %q", s.Process.SelinuxLabel, s.Linux.MountLabel, tt.process, tt.mount)
			}
		})
	}
}

func TestSeccompPathOfBothForms(t *testing.T) {
	for _, ref := range []string{"/var/lib/p.json", "localhost//var/lib/p.json"} {
		c := &criapi.ContainerConfig{Linux: &criapi.LinuxContainerConfig{SecurityContext: &ctxt{
			Seccomp: &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: ref},
		}}}
		if got, err := SeccompPath(c); got != "/var/lib/p.json" || err != nil {
			t.Errorf("SeccompPath of %s = %q, %v", ref, got, err)
		}
	}
}

func TestRelabelPaths(t *testing.T) {
	c := &criapi.ContainerConfig{Mounts: []*criapi.Mount{
		{HostPath: "/var/lib/x/", SelinuxRelabel: true}, {HostPath: "/y"}, {HostPath: "/etc/.", SelinuxRelabel: true}, {Image: &criapi.ImageSpec{Image: "i"}, SelinuxRelabel: true},
	}}
	if d := cmp.Diff([]string{"/var/lib/x", "/etc"}, RelabelPaths(c)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
