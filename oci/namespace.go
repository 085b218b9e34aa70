package oci

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

const nsField = "linux.security_context.namespace_options"

// podNamespaces lists the namespaces that a pod makes for its containers to
// share, the user namespace first because it owns the others. The UTS
// namespace goes with the network: a pod on the node's network has the node's
// name too. A PID namespace needs a process that stays: a pod spec that has one
// needs a pause, no other does.
func podNamespaces(opts *criapi.NamespaceOption, facts host.Facts) ([]specs.LinuxNamespace, error) {
	if err := checkPodModes(opts); err != nil {
		return nil, err
	}
	var list []specs.LinuxNamespace
	add := func(want bool, t specs.LinuxNamespaceType) {
		if want {
			list = append(list, specs.LinuxNamespace{Type: t})
		}
	}
	userns := opts.GetUsernsOptions() != nil && opts.GetUsernsOptions().GetMode() == criapi.NamespaceMode_POD
	if userns && !facts.UserNS {
		return nil, badPod(nsField+".userns_options", "this kernel makes no user namespaces")
	}
	ownNet := opts.GetNetwork() == criapi.NamespaceMode_POD
	add(userns, specs.UserNamespace)
	add(ownNet, specs.NetworkNamespace)
	add(opts.GetIpc() == criapi.NamespaceMode_POD, specs.IPCNamespace)
	add(ownNet, specs.UTSNamespace)
	add(opts.GetPid() == criapi.NamespaceMode_POD, specs.PIDNamespace)
	return list, nil
}

func checkPodModes(opts *criapi.NamespaceOption) error {
	userns := opts.GetUsernsOptions() != nil && opts.GetUsernsOptions().GetMode() == criapi.NamespaceMode_POD
	for _, n := range []struct {
		name string
		mode criapi.NamespaceMode
	}{{"network", opts.GetNetwork()}, {"ipc", opts.GetIpc()}, {"pid", opts.GetPid()}} {
		field := nsField + "." + n.name
		switch n.mode {
		case criapi.NamespaceMode_POD:
		case criapi.NamespaceMode_NODE:
			// procfs and mqueue may be mounted only by the owner of the
			// namespace they show, which root of a user namespace is not of
			// the node's (user_namespaces(7)). The network shows through
			// sysfs alone, which can be bound instead.
			if userns && n.name != "network" {
				return badPod(field, "NODE cannot be had in a user namespace; use POD, or userns_options.mode NODE")
			}
		case criapi.NamespaceMode_CONTAINER:
			if n.name != "pid" {
				return badPod(field, "CONTAINER is not possible; use POD or NODE")
			}
		case criapi.NamespaceMode_TARGET:
			return badPod(field, "TARGET is for containers; a pod takes POD or NODE")
		default:
			return badPod(field, "unknown mode %d", int32(n.mode))
		}
	}
	return nil
}

// namespaces lists what the container joins (with a path) and what is made for
// it alone (without). The mount namespace is always its own.
func (b *builder) namespaces() ([]specs.LinuxNamespace, error) {
	opts := b.sc.GetNamespaceOptions()
	if err := b.checkModes(opts); err != nil {
		return nil, err
	}
	var list []specs.LinuxNamespace
	for _, n := range b.in.PodSpec.Linux.Namespaces {
		if n.Type != specs.PIDNamespace {
			list = append(list, b.podNamespace(n.Type))
		}
	}
	pid, err := b.pidNamespace(opts)
	if err != nil {
		return nil, err
	}
	if pid != nil {
		list = append(list, *pid)
	}
	list = append(list, specs.LinuxNamespace{Type: specs.MountNamespace})
	// A privileged container manages the node's cgroups. In a user namespace
	// it cannot: cgroupfs may be mounted only by the owner of the namespace.
	if b.in.Facts.CgroupNS && (!b.privileged || b.userns()) {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list, nil
}

func (b *builder) podNamespace(t specs.LinuxNamespaceType) specs.LinuxNamespace {
	return specs.LinuxNamespace{Type: t, Path: namespacePath(b.runDir, b.in.PodID, t)}
}

// pidNamespace returns nil for the node's.
func (b *builder) pidNamespace(opts *criapi.NamespaceOption) (*specs.LinuxNamespace, error) {
	own := &specs.LinuxNamespace{Type: specs.PIDNamespace}
	podMode := b.in.Pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid()
	switch opts.GetPid() {
	case criapi.NamespaceMode_CONTAINER:
		return own, nil
	case criapi.NamespaceMode_TARGET:
		own.Path = b.in.TargetPIDNS
		return own, nil
	case criapi.NamespaceMode_NODE:
		return nil, nil
	}
	// POD is also what a config says that does not set the field, so the pod's
	// own choice decides; where the pod shares none, nothing is shared.
	switch {
	case podMode == criapi.NamespaceMode_NODE:
		return nil, nil
	case b.podHas(specs.PIDNamespace):
		n := b.podNamespace(specs.PIDNamespace)
		return &n, nil
	}
	return own, nil
}

// checkModes refuses what would give a container more of the node than its
// pod was granted.
func (b *builder) checkModes(opts *criapi.NamespaceOption) error {
	pod := b.in.Pod.GetLinux().GetSecurityContext().GetNamespaceOptions()
	for _, n := range []struct {
		name     string
		mode     criapi.NamespaceMode
		podsMode criapi.NamespaceMode
	}{
		{"network", opts.GetNetwork(), pod.GetNetwork()},
		{"ipc", opts.GetIpc(), pod.GetIpc()},
		{"pid", opts.GetPid(), pod.GetPid()},
	} {
		field := nsField + "." + n.name
		switch n.mode {
		case criapi.NamespaceMode_POD:
		case criapi.NamespaceMode_NODE:
			if n.podsMode != criapi.NamespaceMode_NODE {
				return badContainer(field, "NODE, but the pod was run with %s", n.podsMode)
			}
		case criapi.NamespaceMode_CONTAINER, criapi.NamespaceMode_TARGET:
			if n.name != "pid" {
				return badContainer(field, "%s is not possible; use POD or NODE", n.mode)
			}
		default:
			return badContainer(field, "unknown mode %d", int32(n.mode))
		}
	}
	if err := b.checkTarget(opts); err != nil {
		return err
	}
	return b.checkUserns(opts.GetUsernsOptions())
}

func (b *builder) checkTarget(opts *criapi.NamespaceOption) error {
	if opts.GetPid() != criapi.NamespaceMode_TARGET {
		return nil
	}
	field := nsField + ".target_id"
	switch target := opts.GetTargetId(); {
	case target == "":
		return badContainer(field, "is empty, and pid is TARGET")
	case target == b.in.ID:
		return badContainer(field, "is the container itself")
	case b.in.TargetPIDNS == "":
		return badContainer(field, "%q is not a running container of this pod", target)
	}
	return nil
}

func (b *builder) podHas(t specs.LinuxNamespaceType) bool { return hasNamespace(b.in.PodSpec, t) }

func hasNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	if s == nil || s.Linux == nil {
		return false
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == t {
			return true
		}
	}
	return false
}
