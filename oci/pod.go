package oci

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

// PodInput is all that a pod's spec is made from.
type PodInput struct {
	ID     string
	Config *criapi.PodSandboxConfig
	RunDir string // "" is DefaultRunDir
	// CgroupPath is the pod's own cgroup; "" derives it from cgroup_parent.
	CgroupPath string
	Facts      host.Facts
	// SeccompProfile is the file that PodSeccompPath named.
	SeccompProfile []byte
}

// Pod describes what a pod makes for its containers to share. There is no root
// in it: namespaces without a path are made and pinned, the sysctls written in
// them, the cgroup is made, and the one mount, at a path on the node for want
// of a root, is what containers bind at /dev/shm. A PID namespace among them
// asks for a pause process; no other pod has a process.
func Pod(in PodInput) (*specs.Spec, error) {
	if err := checkPod(in); err != nil {
		return nil, err
	}
	sc := in.Config.GetLinux().GetSecurityContext()
	opts := sc.GetNamespaceOptions()
	uids, gids, err := podMappings(opts.GetUsernsOptions())
	if err != nil {
		return nil, err
	}
	namespaces, err := podNamespaces(opts, in.Facts)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{Version: specs.Version, Linux: &specs.Linux{
		Namespaces: namespaces, UIDMappings: uids, GIDMappings: gids,
	}}
	if s.Annotations, err = podAnnotations(in); err != nil {
		return nil, err
	}
	if s.Linux.Sysctl, err = sysctls(in.Config.GetLinux().GetSysctls(), s); err != nil {
		return nil, err
	}
	if err := podHostname(in.Config, s); err != nil {
		return nil, err
	}
	if hasPause(in.Config) {
		if err := podPause(in, s); err != nil {
			return nil, err
		}
	}
	if hasNamespace(s, specs.IPCNamespace) {
		s.Mounts = []specs.Mount{shmMount(podFile(runDirOr(in.RunDir), in.ID, "shm"))}
	}
	return s, podCgroup(in, s)
}

// pauseID is the user and group of a pause process that nobody gave one, as the
// image of Kubernetes' has it.
const pauseID = 65535

// hasPause says whether the pod's containers share a PID namespace of the pod's,
// which needs a first process that stays.
func hasPause(c *criapi.PodSandboxConfig) bool {
	return c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() == criapi.NamespaceMode_POD
}

// podPause describes the pause process: a container with CAP_SYS_PTRACE can make
// it its own, so it has no right that could be taken over.
func podPause(in PodInput, s *specs.Spec) error {
	sc := in.Config.GetLinux().GetSecurityContext()
	user := specs.User{UID: pauseID, GID: pauseID}
	for _, id := range []struct {
		field string
		value *criapi.Int64Value
		into  *uint32
		maps  []specs.LinuxIDMapping
	}{
		{"run_as_user", sc.GetRunAsUser(), &user.UID, s.Linux.UIDMappings}, {"run_as_group", sc.GetRunAsGroup(), &user.GID, s.Linux.GIDMappings},
	} {
		if id.value != nil {
			n, why := checkedID(id.value.GetValue())
			if why != "" {
				return badPod(scField+id.field, "%s", why)
			}
			*id.into = n
		}
		switch {
		case len(id.maps) == 0 || mapped(id.maps, *id.into):
		case id.value != nil:
			return badPod(scField+id.field, "%d is not mapped in the pod's user namespace", *id.into)
		default:
			*id.into = 0
		}
	}
	s.Process = &specs.Process{User: user, Cwd: "/", NoNewPrivileges: true}
	r := podSeccomp(in.Config)
	r.facts, r.file = in.Facts, in.SeccompProfile
	var err error
	s.Linux.Seccomp, err = r.resolve()
	return err
}

// shmMount is bounded: what is written there counts as the writer's memory,
// but stays when the container is gone.
func shmMount(dest string) specs.Mount {
	return specs.Mount{
		Destination: dest, Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"},
	}
}

func podHostname(c *criapi.PodSandboxConfig, s *specs.Spec) error {
	name, err := Hostname(c, "")
	if err != nil {
		return err
	}
	if hasNamespace(s, specs.UTSNamespace) {
		s.Hostname = name
	}
	return nil
}

// podCgroup sets the pod's cgroup. The limits of the pod as a whole go on it
// only where it is the parent of the containers; below a cgroup_parent, that
// parent has them already, from the kubelet.
func podCgroup(in PodInput, s *specs.Spec) error {
	linux := in.Config.GetLinux()
	own, err := cgroupPath(in.Config, in.ID, in.ID, in.Facts.CgroupDriver)
	if err != nil {
		return err
	}
	if s.Linux.CgroupsPath = in.CgroupPath; in.CgroupPath == "" {
		s.Linux.CgroupsPath = own
	}
	sum, err := PodResources(linux, in.Facts)
	if err != nil {
		return err
	}
	if linux.GetCgroupParent() == "" {
		s.Linux.Resources = sum
	}
	return nil
}

// checkPod checks what has no counterpart in the spec.
func checkPod(in PodInput) error {
	if err := CheckID("pod id", in.ID); err != nil {
		return err
	}
	m := in.Config.GetMetadata()
	if m.GetName() == "" {
		return badPod("metadata.name", "is empty")
	}
	for _, f := range []struct{ field, value string }{
		{"metadata.name", m.GetName()}, {"metadata.namespace", m.GetNamespace()}, {"metadata.uid", m.GetUid()},
	} {
		if why := checkName(f.value); why != "" {
			return badPod(f.field, "%s", why)
		}
	}
	sc := in.Config.GetLinux().GetSecurityContext()
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil {
		return badPod("linux.security_context.run_as_group", "is set without run_as_user")
	}
	if _, ok := criapi.SupplementalGroupsPolicy_name[int32(sc.GetSupplementalGroupsPolicy())]; !ok {
		return badPod("linux.security_context.supplemental_groups_policy", "unknown policy %d", int32(sc.GetSupplementalGroupsPolicy()))
	}
	if err := checkProfile(podConfig, "seccomp", sc.GetSeccomp()); err != nil {
		return err
	}
	if err := checkProfile(podConfig, "apparmor", sc.GetApparmor()); err != nil {
		return err
	}
	if in.Facts.SELinux {
		if err := checkSELinux(podConfig, sc.GetSelinuxOptions()); err != nil {
			return err
		}
	}
	_, err := LogPath(in.Config, nil)
	return err
}
