package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// secure changes a container's security context.
func secure(f func(*criapi.LinuxContainerSecurityContext)) func(*criapi.ContainerConfig) {
	return func(c *criapi.ContainerConfig) { f(c.Linux.SecurityContext) }
}

// unconfined is said of AppArmor where a test is about another fence.
var unconfined = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Unconfined}

// TestStatusFeatures: what the kubelet asks before it lets pods use it.
func TestStatusFeatures(t *testing.T) {
	n := start(t)
	r, err := n.Runtime.Status(n.ctx(), &criapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Features; !f.GetSupplementalGroupsPolicy() || !f.GetMountOptions() || !f.GetUserNamespacesHostNetwork() {
		t.Errorf("features: %v", f)
	}
	names := []string{}
	for _, h := range r.RuntimeHandlers {
		names = append(names, h.Name)
		if !h.Features.GetUserNamespaces() || !h.Features.GetRecursiveReadOnlyMounts() {
			t.Errorf("handler %q: %v", h.Name, h.Features)
		}
	}
	if !slices.Equal(names, []string{"", "other"}) {
		t.Errorf("handlers: %q", names)
	}
}

// TestFiltersAreCompiledOnce: a second container with the same seccomp profile compiles nothing, nor does an exec.
func TestFiltersAreCompiledOnce(t *testing.T) {
	n := start(t)
	compiled := func() (count int, api int) {
		t.Helper()
		r, err := n.Runtime.Status(n.ctx(), &criapi.StatusRequest{Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			SeccompFiltersCompiled int
			Host                   struct{ SeccompAPI int }
		}
		if err := json.Unmarshal([]byte(r.Info["config"]), &info); err != nil {
			t.Fatal(err)
		}
		return info.SeccompFiltersCompiled, info.Host.SeccompAPI
	}
	profile := secure(func(s *criapi.LinuxContainerSecurityContext) {
		s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault}
	})
	p := n.runPod("filters")
	p.run("first", "", idle, profile)
	first, api := compiled()
	if first == 0 || api < 3 {
		t.Errorf("%d filters compiled for a container with a profile; API level %d", first, api)
	}
	p.run("second", "", idle, profile).exec("true")
	if again, _ := compiled(); again != first {
		t.Errorf("%d filters compiled for the same profile again", again-first)
	}
	n.removeAll()
}

// TestWhoRuns: user and groups of the process, as status and the process itself tell them.
func TestWhoRuns(t *testing.T) {
	n := start(t)
	p := n.runPod("who")
	user := func(uid int64) *criapi.Int64Value { return &criapi.Int64Value{Value: uid} }
	for _, c := range []struct {
		name string
		mod  func(*criapi.LinuxContainerSecurityContext)
		want string // uid gid groups
	}{
		{"root", func(*criapi.LinuxContainerSecurityContext) {}, "0 0 0"},
		{"a uid that the image lacks", func(s *criapi.LinuxContainerSecurityContext) { s.RunAsUser = user(1234) }, "1234 0 0"},
		{"a name", func(s *criapi.LinuxContainerSecurityContext) { s.RunAsUsername = "nobody" }, "65534 65534 65534 7000"},
		{"a name, strict", func(s *criapi.LinuxContainerSecurityContext) {
			s.RunAsUsername, s.SupplementalGroupsPolicy = "nobody", criapi.SupplementalGroupsPolicy_Strict
		}, "65534 65534 65534"},
		{"groups besides the image's", func(s *criapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.RunAsGroup, s.SupplementalGroups = user(65534), user(5000), []int64{6000}
		}, "65534 5000 5000 6000 7000"},
		{"groups, strict", func(s *criapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.SupplementalGroups, s.SupplementalGroupsPolicy = user(65534), []int64{6000}, criapi.SupplementalGroupsPolicy_Strict
		}, "65534 65534 65534 6000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &pod{n: &node{n.Daemon, t}, id: p.id, config: p.config}
			ctr := q.run("main", "", idle, secure(c.mod))
			defer ctr.remove()
			want := strings.Fields(c.want)
			u := ctr.status().User.GetLinux()
			if got := append([]int64{u.GetUid(), u.GetGid()}, u.GetSupplementalGroups()...); cmp.Diff(want, numbers(got)) != "" {
				t.Errorf("status says %v, want %s", got, c.want)
			}
			slices.Sort(want[2:]) // the kernel has an order of its own
			for _, pid := range []string{"1", "self"} {
				if got := strings.Fields(ctr.exec("awk '/^[UG]id/{print $2} /^Groups/{$1=\"\";print}' /proc/" + pid + "/status")); len(got) < 3 {
					t.Errorf("process %s: %q", pid, got)
				} else if slices.Sort(got[2:]); cmp.Diff(want, got) != "" {
					t.Errorf("process %s runs as %q, want %q", pid, got, want)
				}
			}
		})
	}
}

func numbers(list []int64) (out []string) {
	for _, v := range list {
		out = append(out, strconv.FormatInt(v, 10))
	}
	return out
}

// proc gives fields of a process's status file as the kernel has them.
func (c *container) proc(pid string, fields ...string) string {
	c.n.t.Helper()
	return c.exec("awk '/^(" + strings.Join(fields, "|") + "):/{printf \"%s \", $2}' /proc/" + pid + "/status")
}

// TestCapabilitiesAndFilters: what the first process has, and an exec beside it.
func TestCapabilitiesAndFilters(t *testing.T) {
	n := start(t)
	profile := filepath.Join(n.Dir, "profile.json")
	deny := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`
	if err := os.WriteFile(profile, []byte(deny), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(profile)
	p := n.runPod("caps", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	type sc = criapi.LinuxContainerSecurityContext
	const none, kill, dflt = "0000000000000000", "0000000000000020", "00000000a80425fb"
	for _, c := range []struct {
		name string
		mod  func(*sc)
		want string // CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp
	}{
		{"default", func(*sc) {}, none + " " + dflt + " " + dflt + " " + dflt + " " + none + " 0 2 "},
		{"no filter said", func(s *sc) { s.Seccomp = nil }, none + " " + dflt + " " + dflt + " " + dflt + " " + none + " 0 0 "},
		{"unconfined", func(s *sc) { s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Unconfined} }, none + " " + dflt + " " + dflt + " " + dflt + " " + none + " 0 0 "},
		{"drop ALL, add one", func(s *sc) {
			s.Capabilities = &criapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"kill"}}
			s.NoNewPrivs = true
		}, none + " " + kill + " " + kill + " " + kill + " " + none + " 1 2 "},
		{"another user", func(s *sc) { s.RunAsUser = &criapi.Int64Value{Value: 7} }, none + " " + none + " " + none + " " + dflt + " " + none + " 0 2 "},
		{"another user, ambient", func(s *sc) {
			s.RunAsUser = &criapi.Int64Value{Value: 7}
			s.Capabilities = &criapi.Capability{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"CAP_KILL"}}
		}, kill + " " + kill + " " + kill + " " + kill + " " + kill + " 0 2 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &pod{n: &node{n.Daemon, t}, id: p.id, config: p.config}
			ctr := q.run("main", "", idle, secure(c.mod))
			defer ctr.remove()
			for _, pid := range []string{"1", "self"} {
				if got := ctr.proc(pid, "Cap.*", "NoNewPrivs", "Seccomp"); got+" " != c.want {
					t.Errorf("process %s has %q, want %q", pid, got, c.want)
				}
			}
		})
	}
	t.Run("localhost profile", func(t *testing.T) {
		q := &pod{n: &node{n.Daemon, t}, id: p.id, config: p.config}
		local := func(s *sc) {
			s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: profile}
		}
		ctr := q.run("main", "mkdir /tmp/a; echo code $?; exec sleep 1000", secure(local))
		defer ctr.remove()
		ctr.says("code 1")
		if r, err := ctr.tryExec(5, "mkdir /tmp/b"); err != nil || r.ExitCode == 0 {
			t.Errorf("an exec escapes the filter: %v %v", r, err)
		}
		privileged := q.run("privileged", "mkdir /tmp/a && echo made; exec sleep 1000", secure(local), secure(func(s *sc) { s.Privileged = true }))
		privileged.says("made")
		if got := privileged.exec("ls /dev/loop-control /dev/fuse 2>/dev/null | wc -l; touch /proc/sys/kernel/domainname && grep -c ' /sys sysfs rw\\| /sys .* rw' /proc/self/mounts"); strings.HasPrefix(got, "0") {
			t.Errorf("a privileged container has no devices of the node: %q", got)
		}
		privileged.remove()
	})
}

// TestHiddenPaths: what is masked, what is read-only, and the root.
func TestHiddenPaths(t *testing.T) {
	n := start(t)
	p := n.runPod("hidden", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	const look = `size() { cat $1 | wc -c | sed 's/^0$/nothing/;s/^[0-9]*$/something/'; }
		writable() { cat $1 > /dev/shm/was && cat /dev/shm/was > $1 && echo writable || echo not; }
		echo $(size /proc/interrupts) $(size /proc/uptime) $(ls /home | wc -l) $(writable /proc/sys/kernel/domainname) $(writable /etc/group)`
	for _, x := range []struct {
		name, want string
		mod        func(*criapi.LinuxContainerSecurityContext)
	}{
		{"default", "nothing something 1 not writable", func(*criapi.LinuxContainerSecurityContext) {}},
		{"lists", "something nothing 0 writable not", func(s *criapi.LinuxContainerSecurityContext) {
			s.MaskedPaths, s.ReadonlyPaths = []string{"/proc/uptime", "/home", "/none"}, []string{"/etc", "/none"}
		}},
		{"privileged", "something something 1 writable writable", func(s *criapi.LinuxContainerSecurityContext) {
			s.Privileged, s.MaskedPaths, s.ReadonlyPaths = true, []string{"/proc/uptime"}, []string{"/etc"}
		}},
		{"a root that is read-only", "nothing something 1 not not", func(s *criapi.LinuxContainerSecurityContext) { s.ReadonlyRootfs = true }},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := (&pod{n: &node{n.Daemon, t}, id: p.id, config: p.config}).run("main", "", idle, secure(x.mod), secure(func(s *criapi.LinuxContainerSecurityContext) { s.Apparmor = unconfined }))
			defer c.remove()
			if got := c.exec(look + " 2>/dev/null"); got != x.want {
				t.Errorf("interrupts, uptime, files of /home, domainname, /etc/group: %q, want %q", got, x.want)
			}
		})
	}
}

// TestNamespaceModes: whose processes and which network a container sees.
func TestNamespaceModes(t *testing.T) {
	n := start(t)
	type opt = criapi.NamespaceOption
	const none = criapi.NamespaceMode_CONTAINER
	pid := func(o *opt) func(*criapi.ContainerConfig) {
		return secure(func(s *criapi.LinuxContainerSecurityContext) { s.NamespaceOptions = o })
	}
	p := n.runPod("modes")
	own := p.run("own", "exec sleep 1001", pid(&opt{Pid: none}))
	if got := own.exec("cat /proc/1/cmdline | tr '\\0' ' '"); got != "sleep 1001" {
		t.Errorf("CONTAINER: process 1 is %q", got)
	}
	target := p.run("target", "sleep 1002", pid(&opt{Pid: criapi.NamespaceMode_TARGET, TargetId: own.id}))
	if got := target.exec("cat /proc/1/cmdline | tr '\\0' ' '; [ $(readlink /proc/1/ns/pid) = $(readlink /proc/self/ns/pid) ] && echo same"); got != "sleep 1001 same" {
		t.Errorf("TARGET: process 1 is %q", got)
	}
	for name, o := range map[string]*opt{"nobody": {Pid: criapi.NamespaceMode_TARGET, TargetId: "nobody"}, "no name": {Pid: criapi.NamespaceMode_TARGET}} {
		if _, err := p.tryCreate(containerConfig("bad", "true", pid(o))); err == nil {
			t.Errorf("TARGET of %s was accepted", name)
		} else {
			t.Log(err)
		}
	}
	other := n.runPod("other")
	if _, err := other.tryCreate(containerConfig("bad", "true", pid(&opt{Pid: criapi.NamespaceMode_TARGET, TargetId: own.id}))); err == nil {
		t.Error("a container entered a namespace of another pod")
	} else {
		mustFail(t, err, codes.InvalidArgument, "target_id", "another pod")
	}
	host := &opt{Pid: criapi.NamespaceMode_NODE, Ipc: criapi.NamespaceMode_NODE, Network: criapi.NamespaceMode_NODE}
	hp := n.runPod("host", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions = host })
	c := hp.run("host", "exec sleep 1003", pid(host))
	for _, ns := range []string{"pid", "ipc", "net"} {
		want, err := os.Readlink("/proc/self/ns/" + ns)
		if got := c.exec("readlink /proc/self/ns/" + ns); got != want || err != nil {
			t.Errorf("NODE: %s is %s, the node's %s %v", ns, got, want, err)
		}
	}
}

// TestUserNamespaceOnTheNodesNetwork is the feature user_namespaces_host_network.
func TestUserNamespaceOnTheNodesNetwork(t *testing.T) {
	n := start(t)
	network := func(o *criapi.NamespaceOption) { o.Network = criapi.NamespaceMode_NODE }
	p := n.runPod("hostnet", usernsPod, func(c *criapi.PodSandboxConfig) { network(c.Linux.SecurityContext.NamespaceOptions) })
	c := p.run("main", "", idle, usernsContainer, func(c *criapi.ContainerConfig) { network(c.Linux.SecurityContext.NamespaceOptions) })
	want, err := os.Readlink("/proc/self/ns/net")
	if got := c.exec("readlink /proc/self/ns/net"); got != want || err != nil {
		t.Errorf("network namespace %s, the node's is %s %v", got, want, err)
	}
	if got := c.exec("awk '{print $1, $2, $3}' /proc/self/uid_map; ls /sys/class/net | grep -c '^lo$'"); got != "0 500000 65536\n1" {
		t.Errorf("in the container: %q", got)
	}
	if r, err := c.tryExec(5, "echo > /sys/kernel/uevent_helper; ip link set lo down"); err != nil || r.ExitCode == 0 {
		t.Errorf("root of the user namespace changes the node: %v %v", r, err)
	}
}

// TestUserNamespaceRejections: what kubelet never sends, and what would give a pod another's files.
func TestUserNamespaceRejections(t *testing.T) {
	n := start(t)
	type m = []*criapi.IDMapping
	good := m{{HostId: usernsBase, Length: 65536}}
	for _, c := range []struct {
		name string
		o    *criapi.UserNamespace
		says string
	}{
		{"two mappings", &criapi.UserNamespace{Uids: m{{HostId: 1, Length: 1}, {HostId: 2, ContainerId: 1, Length: 1}}, Gids: good}, "userns_options.uids: has 2 mappings"},
		{"no gids", &criapi.UserNamespace{Uids: good}, "userns_options.gids: has 0 mappings"},
		{"root unmapped", &criapi.UserNamespace{Uids: m{{HostId: 1, ContainerId: 1, Length: 1}}, Gids: good}, "userns_options.uids[0].container_id"},
		{"empty range", &criapi.UserNamespace{Uids: m{{HostId: 1}}, Gids: good}, "userns_options.uids[0]: length is 0"},
		{"beyond the last id", &criapi.UserNamespace{Uids: good, Gids: m{{HostId: 1 << 31, Length: 1 << 31}}}, "userns_options.gids[0]"},
		{"CONTAINER", &criapi.UserNamespace{Mode: criapi.NamespaceMode_CONTAINER, Uids: good, Gids: good}, "userns_options.mode"},
		{"TARGET", &criapi.UserNamespace{Mode: criapi.NamespaceMode_TARGET, Uids: good, Gids: good}, "userns_options.mode"},
		{"mappings of NODE", &criapi.UserNamespace{Mode: criapi.NamespaceMode_NODE, Uids: good, Gids: good}, "userns_options"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := podConfig("bad", func(pc *criapi.PodSandboxConfig) { pc.Linux.SecurityContext.NamespaceOptions.UsernsOptions = c.o })
			_, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: config})
			mustFail(t, err, codes.InvalidArgument, c.says)
		})
	}
	p := n.runPod("userns", usernsPod)
	for name, mod := range map[string]func(*criapi.ContainerConfig){
		"another mapping than the pod's": func(c *criapi.ContainerConfig) {
			usernsContainer(c)
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions.Uids = m{{HostId: 7, Length: 65536}}
		},
		"the node's user namespace": func(c *criapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_NODE}
		},
		"a volume mapped otherwise": mount("/etc", "/v", func(v *criapi.Mount) { v.UidMappings, v.GidMappings = m{{HostId: 7, Length: 65536}}, good }),
		"a user that is not mapped": secure(func(s *criapi.LinuxContainerSecurityContext) { s.RunAsUser = &criapi.Int64Value{Value: 65536} }),
		"shared propagation":        mount("/etc", "/v", func(v *criapi.Mount) { v.Propagation = criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL }),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.tryCreate(containerConfig("bad", "true", mod))
			mustFail(t, err, codes.InvalidArgument)
		})
	}
}

// TestExecSharesTheSessionKeyring: an exec finds the keys of its container, and leaves no keyring of its own behind.
func TestExecSharesTheSessionKeyring(t *testing.T) {
	n := start(t)
	c := n.runPod("keys").run("main", "", idle)
	for range 3 {
		c.exec("sleep 1000 >/dev/null 2>&1 &")
	}
	b, err := os.ReadFile("/proc/keys")
	if err != nil {
		t.Fatal(err)
	}
	if rings := strings.Count(string(b), " _ses."+c.id+":"); rings != 1 {
		t.Errorf("container and execs have %d keyrings:\n%s", rings, b)
	}
}
