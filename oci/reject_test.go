package oci

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// input is the default golden case, for a test to spoil.
func input(t *testing.T) ContainerInput {
	t.Helper()
	in := readRequest(t, filepath.Join("testdata", "default", "cri.json")).containerInput(t)
	in.Pod.Linux.SecurityContext.NamespaceOptions = &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}
	return in
}

func podInput(t *testing.T) PodInput {
	t.Helper()
	return readRequest(t, filepath.Join("testdata", "pod-default", "cri.json")).podInput(t)
}

type (
	ctxt  = criapi.LinuxContainerSecurityContext
	nsopt = criapi.NamespaceOption
)

func one(n int64) *criapi.Int64Value { return &criapi.Int64Value{Value: n} }

func withUserns(in *ContainerInput) {
	m := []*criapi.IDMapping{{HostId: 100000, Length: 1000}}
	in.Pod.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Uids: m, Gids: m}
}

func volume(m *criapi.Mount) func(*ContainerInput) {
	return func(in *ContainerInput) {
		in.Config.Mounts = []*criapi.Mount{{ContainerPath: "/a", HostPath: "/a"}, m}
	}
}

// TestContainerRejects lists what is refused and how it is worded: want is the
// whole message.
func TestContainerRejects(t *testing.T) {
	sc := func(f func(*ctxt)) func(*ContainerInput) {
		return func(in *ContainerInput) { f(in.Config.Linux.SecurityContext) }
	}
	res := func(f func(*criapi.LinuxContainerResources)) func(*ContainerInput) {
		return func(in *ContainerInput) { f(in.Config.Linux.Resources) }
	}
	const cc, s = "container config: ", "container config: linux.security_context."
	const iv = "ImageVolumeMountFailed: "
	for _, tt := range []struct {
		name  string
		spoil func(*ContainerInput)
		want  string
	}{
		{"id climbs", func(in *ContainerInput) { in.ID = "../x" }, `container id: "../x": contains ".."`},
		{"id slash", func(in *ContainerInput) { in.ID = "a/b" }, `container id: "a/b": may hold only letters, digits, '_', '.' and '-'`},
		{"pod id empty", func(in *ContainerInput) { in.PodID = "" }, `pod id: "": is empty`},
		{"no name", func(in *ContainerInput) { in.Config.Metadata.Name = "" }, cc + "metadata.name: is empty"},
		{"no metadata", func(in *ContainerInput) { in.Config.Metadata = nil }, cc + "metadata.name: is empty"},
		{"log path climbs", func(in *ContainerInput) { in.Config.LogPath = "../../etc/passwd" }, cc + `log_path: "../../etc/passwd" contains ".."`},
		{"log path absolute", func(in *ContainerInput) { in.Config.LogPath = "/x.log" }, cc + `log_path: "/x.log" is absolute; give a path relative to the pod's log_directory`},
		{"signal", func(in *ContainerInput) { in.Config.StopSignal = 99 }, cc + "stop_signal: unknown signal 99"},
		{"cdi", func(in *ContainerInput) { in.Config.CDIDevices = []*criapi.CDIDevice{{Name: "a.b/c=d"}} }, cc + "CDI_devices: not yet supported"},
		{"no command", func(in *ContainerInput) { in.Image = nil }, cc + "command: is empty, and the image has no Entrypoint and no Cmd"},
		{"relative cwd", func(in *ContainerInput) { in.Config.WorkingDir = "srv" }, cc + `working_dir: "srv" is relative; give an absolute path`},
		{"image's relative cwd", func(in *ContainerInput) { in.Image.Config.WorkingDir = "srv" }, `image config: WorkingDir: "srv" is relative; give an absolute path`},
		{"env key", func(in *ContainerInput) { in.Config.Envs = []*criapi.KeyValue{{Key: "A=B"}} }, cc + `envs[0].key: "A=B" holds '=' or a NUL byte`},
		{"arg NUL", func(in *ContainerInput) { in.Config.Args = []string{"a", "b\x00"} }, cc + "args[1]: contains a NUL byte"},

		{"relative source", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "etc"}), cc + `mounts[1].host_path: "etc" is relative; give an absolute path`},
		{"no source", volume(&criapi.Mount{ContainerPath: "/b"}), cc + `mounts[1].host_path: is empty`},
		{"source climbs", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/a/../b"}), cc + `mounts[1].host_path: "/a/../b" contains ".."; give the path without it`},
		{"relative target", volume(&criapi.Mount{ContainerPath: "b", HostPath: "/b"}), cc + `mounts[1].container_path: "b" is relative; give an absolute path`},
		{"target root", volume(&criapi.Mount{ContainerPath: "//", HostPath: "/b"}), cc + `mounts[1].container_path: the root cannot be mounted over`},
		{"image volume", volume(&criapi.Mount{ContainerPath: "/b", Image: &criapi.ImageSpec{Image: "x"}}), iv + cc + `mounts[1].image: "x" was not looked up`},
		{"image volume that climbs", volume(&criapi.Mount{ContainerPath: "/b", Image: &criapi.ImageSpec{Image: "x"}, ImageSubPath: "a/../../b"}), iv + cc + `mounts[1].image_sub_path: "a/../../b" contains ".."`},
		{"image volume from the root", volume(&criapi.Mount{ContainerPath: "/b", Image: &criapi.ImageSpec{Image: "x"}, ImageSubPath: "/a"}), iv + cc + `mounts[1].image_sub_path: "/a" is absolute; give it from the root of the image`},
		{"image volume that propagates", volume(&criapi.Mount{ContainerPath: "/b", Image: &criapi.ImageSpec{Image: "x"}, Propagation: criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL}), iv + cc + "mounts[1].propagation: an image is no mount of the node that something could propagate to"},
		{"image and path", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/b", Image: &criapi.ImageSpec{Image: "x"}}), iv + cc + "mounts[1].host_path: is set together with image"},
		{"rro not ro", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/b", RecursiveReadOnly: true}), cc + "mounts[1].recursive_read_only: needs readonly too"},
		{"rro slave", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/b", Readonly: true, RecursiveReadOnly: true, Propagation: 1}), cc + "mounts[1].recursive_read_only: needs PROPAGATION_PRIVATE, not PROPAGATION_HOST_TO_CONTAINER: a later mount would come in writable"},
		{"propagation", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/b", Propagation: 7}), cc + "mounts[1].propagation: unknown propagation 7"},
		{"mount option", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/b", MountOptions: []string{"dev"}}), cc + `mounts[1].mount_options[0]: "dev" is none of ["noexec" "nodev" "nosuid" "noatime" "nodiratime" "relatime" "strictatime" "nosymfollow"]`},
		{"idmap without userns", volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/b", UidMappings: []*criapi.IDMapping{{Length: 1}}}), cc + "mounts[1].uidMappings: the pod has no user namespace"},
		{"shared in userns", func(in *ContainerInput) {
			withUserns(in)
			volume(&criapi.Mount{ContainerPath: "/b", HostPath: "/b", Propagation: 2})(in)
		}, cc + "mounts[1].propagation: PROPAGATION_BIDIRECTIONAL is not possible in a user namespace"},
		{"device missing", func(in *ContainerInput) {
			in.Config.Devices = []*criapi.Device{{HostPath: "/dev/x", ContainerPath: "/dev/x", Permissions: "r"}}
		}, cc + `devices[0].host_path: "/dev/x" is no device and holds none`},
		{"device permissions", func(in *ContainerInput) {
			in.Config.Devices = []*criapi.Device{{HostPath: "/dev/x", ContainerPath: "/dev/x", Permissions: "rx"}}
		}, cc + `devices[0].permissions: "rx" is not one or more of r, w and m`},

		{"privileged in a pod that is not", sc(func(c *ctxt) { c.Privileged = true }), s + "privileged: the pod was not run with linux.security_context.privileged"},
		{"group alone", sc(func(c *ctxt) { c.RunAsGroup = one(1) }), s + "run_as_group: is set without run_as_user or run_as_username"},
		{"two users", sc(func(c *ctxt) { c.RunAsUser, c.RunAsUsername = one(1), "root" }), s + "run_as_username: is set together with run_as_user"},
		{"negative user", sc(func(c *ctxt) { c.RunAsUser = one(-1) }), s + "run_as_user: is negative"},
		{"user 2^32-1", sc(func(c *ctxt) { c.RunAsUser = one(1<<32 - 1) }), s + "run_as_user: is greater than 4294967294"},
		{"unknown user", sc(func(c *ctxt) { c.RunAsUsername = "nobody" }), s + `run_as_username: "nobody" is not in the image's /etc/passwd`},
		{"image's unknown user", func(in *ContainerInput) { in.Image.Config.User = "nobody" }, `image config: User: "nobody" is not in the image's /etc/passwd`},
		{"image's unknown group", func(in *ContainerInput) { in.Image.Config.User = "root:wheel" }, `image config: User: group "wheel" is not in the image's /etc/group`},
		{"group policy", sc(func(c *ctxt) { c.SupplementalGroupsPolicy = 5 }), s + "supplemental_groups_policy: unknown policy 5"},
		{"unmapped user", func(in *ContainerInput) { withUserns(in); in.Config.Linux.SecurityContext.RunAsUser = one(1000) }, s + "run_as_user: uid 1000 is not mapped in the pod's user namespace"},
		{"unmapped group", func(in *ContainerInput) {
			withUserns(in)
			in.Config.Linux.SecurityContext.SupplementalGroups = []int64{999, 1000}
		}, s + "supplemental_groups[1]: gid 1000 is not mapped in the pod's user namespace"},
		{"capability", sc(func(c *ctxt) { c.Capabilities = &criapi.Capability{AddCapabilities: []string{"CHOWN", "FLY"}} }), s + `capabilities.add_capabilities[1]: "FLY" is not a capability`},
		{"capability that we lack", sc(func(c *ctxt) { c.Capabilities = &criapi.Capability{AddCapabilities: []string{"sys_resource"}} }), s + "capabilities.add_capabilities[0]: CAP_SYS_RESOURCE cannot be given: the daemon does not have it itself"},
		{"masked path", sc(func(c *ctxt) { c.MaskedPaths = []string{"proc"} }), s + `masked_paths[0]: "proc" is relative; give an absolute path`},
		{"seccomp type", sc(func(c *ctxt) { c.Seccomp = &criapi.SecurityProfile{ProfileType: 9} }), s + "seccomp.profile_type: unknown type 9"},
		{"seccomp path", sc(func(c *ctxt) { c.Seccomp = &criapi.SecurityProfile{ProfileType: 2, LocalhostRef: "a.json"} }), s + `seccomp.localhost_ref: "a.json" is relative; give an absolute path`},
		{"seccomp ref with default", sc(func(c *ctxt) { c.Seccomp = &criapi.SecurityProfile{LocalhostRef: "/a"} }), s + "seccomp.localhost_ref: is set, but profile_type is RuntimeDefault"},
		{"seccomp broken", func(in *ContainerInput) {
			in.SeccompProfile = []byte("{")
			in.Config.Linux.SecurityContext.Seccomp = &criapi.SecurityProfile{ProfileType: 2, LocalhostRef: "/a.json"}
		}, s + "seccomp.localhost_ref: /a.json: unexpected end of JSON input"},
		{"seccomp empty", func(in *ContainerInput) {
			in.SeccompProfile = []byte("{}")
			in.Config.Linux.SecurityContext.Seccomp = &criapi.SecurityProfile{ProfileType: 2, LocalhostRef: "/a.json"}
		}, s + "seccomp.localhost_ref: /a.json: defaultAction is missing"},
		{"no seccomp here", func(in *ContainerInput) {
			in.Facts.Seccomp = false
			in.Config.Linux.SecurityContext.Seccomp = &criapi.SecurityProfile{}
		}, s + "seccomp: RuntimeDefault was asked for, but this kernel has no seccomp filters"},
		{"no apparmor here", sc(func(c *ctxt) { c.Apparmor = &criapi.SecurityProfile{ProfileType: 2, LocalhostRef: "localhost/p"} }), s + `apparmor: profile "p" was asked for, but this node has no AppArmor`},
		{"apparmor word", sc(func(c *ctxt) { c.ApparmorProfile = "strict" }), s + `apparmor_profile: "strict" is none of "runtime/default", "unconfined", "localhost/NAME"`},

		{"host network in a pod without", sc(func(c *ctxt) { c.NamespaceOptions = &nsopt{Network: 2} }), s + "namespace_options.network: NODE, but the pod was run with POD"},
		{"host pid in a pod without", sc(func(c *ctxt) { c.NamespaceOptions = &nsopt{Pid: 2} }), s + "namespace_options.pid: NODE, but the pod was run with CONTAINER"},
		{"own network", sc(func(c *ctxt) { c.NamespaceOptions = &nsopt{Network: 1} }), s + "namespace_options.network: CONTAINER is not possible; use POD or NODE"},
		{"mode", sc(func(c *ctxt) { c.NamespaceOptions = &nsopt{Ipc: 8} }), s + "namespace_options.ipc: unknown mode 8"},
		{"target without id", sc(func(c *ctxt) { c.NamespaceOptions = &nsopt{Pid: 3} }), s + "namespace_options.target_id: is empty, and pid is TARGET"},
		{"target gone", sc(func(c *ctxt) { c.NamespaceOptions = &nsopt{Pid: 3, TargetId: "abc"} }), s + `namespace_options.target_id: "abc" is not a running container of this pod`},
		{"userns unlike the pod's", sc(func(c *ctxt) {
			c.NamespaceOptions = &nsopt{Pid: 1, UsernsOptions: &criapi.UserNamespace{Uids: []*criapi.IDMapping{{Length: 1}}}}
		}), s + "namespace_options.userns_options.mode: POD, but the pod was run with NODE"},

		{"quota", res(func(r *criapi.LinuxContainerResources) { r.CpuQuota = -2 }), cc + "linux.resources.cpu_quota: is below -1, which means no limit"},
		{"cpuset", res(func(r *criapi.LinuxContainerResources) { r.CpusetCpus = "0-" }), cc + `linux.resources.cpuset_cpus: "0-" is not a list like "0-2,5"`},
		{"swap below memory", res(func(r *criapi.LinuxContainerResources) { r.MemorySwapLimitInBytes = 1 }), cc + "linux.resources.memory_swap_limit_in_bytes: is less than memory_limit_in_bytes, which it includes"},
		{"huge page", res(func(r *criapi.LinuxContainerResources) {
			r.HugepageLimits = []*criapi.HugepageLimit{{PageSize: "64KB", Limit: 1}}
		}), cc + "linux.resources.hugepage_limits[0].page_size: this kernel has no huge pages of 64KB"},
		{"unified on v1", res(func(r *criapi.LinuxContainerResources) { r.Unified = map[string]string{"memory.high": "1"} }), cc + `linux.resources.unified["memory.high"]: this node has no cgroup v2 controller memory`},
		{"unified file of ours", res(func(r *criapi.LinuxContainerResources) { r.Unified = map[string]string{"cgroup.freeze": "1"} }), cc + `linux.resources.unified["cgroup.freeze"]: belongs to the runtime`},
		{"oom score", res(func(r *criapi.LinuxContainerResources) { r.OomScoreAdj = 1001 }), cc + "linux.resources.oom_score_adj: 1001 is not between -1000 and 1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t)
			tt.spoil(&in)
			s, err := Container(in)
			checkRejected(t, err, tt.want)
			if s != nil {
				t.Error("a spec came with the error")
			}
		})
	}
}

// TestPodRejects is the same for pods.
func TestPodRejects(t *testing.T) {
	ns := func(f func(*nsopt)) func(*PodInput) {
		return func(in *PodInput) { f(in.Config.Linux.SecurityContext.NamespaceOptions) }
	}
	userns := func(u *criapi.UserNamespace) func(*PodInput) { return ns(func(o *nsopt) { o.UsernsOptions = u }) }
	sysctl := func(k, v string) func(*PodInput) {
		return func(in *PodInput) { in.Config.Linux.Sysctls = map[string]string{k: v} }
	}
	m := func(ctr, length uint32) *criapi.IDMapping {
		return &criapi.IDMapping{ContainerId: ctr, HostId: 1000, Length: length}
	}
	pause := func(f func(*criapi.LinuxSandboxSecurityContext)) func(*PodInput) {
		return func(in *PodInput) {
			in.Config.Linux.SecurityContext.NamespaceOptions = &nsopt{}
			f(in.Config.Linux.SecurityContext)
		}
	}
	const pc, n, u = "pod config: ", "pod config: linux.security_context.namespace_options.", "pod config: linux.security_context.namespace_options.userns_options"
	for _, tt := range []struct {
		name  string
		spoil func(*PodInput)
		want  string
	}{
		{"no name", func(in *PodInput) { in.Config.Metadata.Name = "" }, pc + "metadata.name: is empty"},
		{"no config", func(in *PodInput) { in.Config = nil }, pc + "metadata.name: is empty"},
		{"namespace injects", func(in *PodInput) { in.Config.Metadata.Namespace = "a;K8S_POD_NAME=b" }, pc + `metadata.namespace: "a;K8S_POD_NAME=b" holds '/', ';', '=', a space or a control character`},
		{"long hostname", func(in *PodInput) { in.Config.Hostname = strings.Repeat("a", 64) }, pc + `hostname: "` + strings.Repeat("a", 64) + `" has 64 bytes; 63 is the most`},
		{"hostname slash", func(in *PodInput) { in.Config.Hostname = "a/b" }, pc + `hostname: "a/b" may hold only letters, digits, '-', '_' and '.'`},
		{"relative log directory", func(in *PodInput) { in.Config.LogDirectory = "log" }, pc + `log_directory: "log" is relative; give an absolute path`},
		{"cgroup parent climbs", func(in *PodInput) { in.Config.Linux.CgroupParent = "/a/../../b" }, pc + `linux.cgroup_parent: "/a/../../b" contains ".."`},
		{"long cgroup parent", func(in *PodInput) { in.Config.Linux.CgroupParent = strings.Repeat("/a", 3000) }, pc + "linux.cgroup_parent: has 6000 bytes, at most 2048 leave room for what comes around it in a path"},
		{"group alone", func(in *PodInput) { in.Config.Linux.SecurityContext.RunAsGroup = one(1) }, pc + "linux.security_context.run_as_group: is set without run_as_user"},
		{"user of pause", pause(func(s *criapi.LinuxSandboxSecurityContext) { s.RunAsUser = one(-1) }), pc + "linux.security_context.run_as_user: is negative"},
		{"unmapped user of pause", pause(func(s *criapi.LinuxSandboxSecurityContext) {
			s.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Uids: []*criapi.IDMapping{m(0, 9)}, Gids: []*criapi.IDMapping{m(0, 9)}}
			s.RunAsUser = one(9)
		}), pc + "linux.security_context.run_as_user: 9 is not mapped in the pod's user namespace"},
		{"seccomp path of pause", pause(func(s *criapi.LinuxSandboxSecurityContext) {
			s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: "a.json"}
		}), pc + `linux.security_context.seccomp.localhost_ref: "a.json" is relative; give an absolute path`},
		{"broken seccomp profile of pause", pause(func(s *criapi.LinuxSandboxSecurityContext) {
			s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: "/a.json"}
		}), pc + "linux.security_context.seccomp.localhost_ref: /a.json: unexpected end of JSON input"},
		{"ipc mode", ns(func(o *nsopt) { o.Ipc = 1 }), n + "ipc: CONTAINER is not possible; use POD or NODE"},
		{"pid target", ns(func(o *nsopt) { o.Pid = 3 }), n + "pid: TARGET is for containers; a pod takes POD or NODE"},
		{"net mode", ns(func(o *nsopt) { o.Network = 9 }), n + "network: unknown mode 9"},

		{"two mappings", userns(&criapi.UserNamespace{Uids: []*criapi.IDMapping{m(0, 9), m(0, 9)}, Gids: []*criapi.IDMapping{m(0, 9)}}), u + ".uids: has 2 mappings; exactly one is needed"},
		{"no mappings", userns(&criapi.UserNamespace{}), u + ".uids: has 0 mappings; exactly one is needed"},
		{"root unmapped", userns(&criapi.UserNamespace{Uids: []*criapi.IDMapping{m(1, 9)}}), u + ".uids[0].container_id: 1 leaves container id 0 unmapped; it must be 0"},
		{"empty range", userns(&criapi.UserNamespace{Uids: []*criapi.IDMapping{m(0, 9)}, Gids: []*criapi.IDMapping{m(0, 0)}}), u + ".gids[0]: length is 0"},
		{"range too long", userns(&criapi.UserNamespace{Uids: []*criapi.IDMapping{m(0, 1<<32-1)}}), u + ".uids[0]: the range goes beyond id 4294967294"},
		{"userns CONTAINER", userns(&criapi.UserNamespace{Mode: 1}), u + ".mode: CONTAINER is not possible; use POD or NODE"},
		{"userns TARGET", userns(&criapi.UserNamespace{Mode: 3}), u + ".mode: TARGET is not possible; use POD or NODE"},
		{"userns NODE with uids", userns(&criapi.UserNamespace{Mode: 2, Uids: []*criapi.IDMapping{m(0, 9)}}), u + ": mode NODE takes no uids and gids"},
		{"userns on the node's ipc", func(in *PodInput) {
			ok := []*criapi.IDMapping{m(0, 9)}
			in.Config.Linux.SecurityContext.NamespaceOptions = &nsopt{Ipc: 2, UsernsOptions: &criapi.UserNamespace{Uids: ok, Gids: ok}}
		}, n + "ipc: NODE cannot be had in a user namespace; use POD, or userns_options.mode NODE"},
		{"no userns here", func(in *PodInput) {
			in.Facts.UserNS = false
			ok := []*criapi.IDMapping{m(0, 9)}
			in.Config.Linux.SecurityContext.NamespaceOptions = &nsopt{UsernsOptions: &criapi.UserNamespace{Uids: ok, Gids: ok}}
		}, u + ": this kernel makes no user namespaces"},

		{"sysctl of the node", sysctl("vm.swappiness", "1"), pc + `linux.sysctls["vm.swappiness"]: belongs to no namespace: setting it would change the node`},
		{"sysctl hostname", sysctl("kernel.hostname", "x"), pc + `linux.sysctls["kernel.hostname"]: set hostname instead`},
		{"sysctl climbs", sysctl("net/../kernel/panic", "1"), pc + `linux.sysctls["net/../kernel/panic"]: is not the name of a sysctl`},
		{"sysctl climbs dotted", sysctl("net.//.x", "1"), pc + `linux.sysctls["net.//.x"]: is not the name of a sysctl`},
		{"sysctl newline", sysctl("net.ipv4.tcp_syncookies", "1\n"), pc + `linux.sysctls["net.ipv4.tcp_syncookies"]: the value "1\n" holds a newline or a NUL byte`},
		{"net sysctl on the node's network", func(in *PodInput) {
			in.Config.Linux.SecurityContext.NamespaceOptions.Network = 2
			sysctl("net.ipv4.tcp_syncookies", "1")(in)
		}, pc + `linux.sysctls["net.ipv4.tcp_syncookies"]: would change the node: the pod shares the node's network namespace`},
		{"ipc sysctl on the node's ipc", func(in *PodInput) {
			in.Config.Linux.SecurityContext.NamespaceOptions.Ipc = 2
			sysctl("fs.mqueue.msg_max", "1")(in)
		}, pc + `linux.sysctls["fs.mqueue.msg_max"]: would change the node: the pod shares the node's ipc namespace`},
		{"overhead", func(in *PodInput) { in.Config.Linux.Overhead = &criapi.LinuxContainerResources{CpuShares: -1} }, pc + "linux.overhead.cpu_shares: is negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := podInput(t)
			tt.spoil(&in)
			_, err := Pod(in)
			checkRejected(t, err, tt.want)
		})
	}
}

func checkRejected(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want %q", want)
	}
	if err.Error() != want {
		t.Errorf("error\n got %s\nwant %s", err, want)
	}
	if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) {
		t.Errorf("%T is not an InvalidError", err)
	}
}
