package oci

import (
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/host"
)

// ContainerInput is all that a container's spec is made from: the two configs,
// the image, the facts about the machine, and what the caller had to look up on
// the node because this package may not.
type ContainerInput struct {
	ID, PodID string
	Pod       *criapi.PodSandboxConfig // as the pod was run with
	Config    *criapi.ContainerConfig
	Image     *ispec.Image
	ImageName string // for the annotation; "" is Config.Image.Image
	// Passwd and Group are the image's /etc/passwd and /etc/group; nil when
	// it has none.
	Passwd, Group []byte

	RunDir string // "" is DefaultRunDir
	// Rootfs becomes root.path, where the root is mounted in the container's
	// mount namespace before the pivot; "" is RunDir/rootfs, one empty
	// directory for all.
	Rootfs string
	// CgroupPath is the container's cgroup; "" derives it from cgroup_parent.
	CgroupPath string
	Facts      host.Facts

	// PodSpec is what Pod returned for this pod; nil makes it anew.
	PodSpec *specs.Spec
	// TargetPIDNS is the PID namespace ("/proc/PID/ns/pid") of the container
	// that namespace_options.target_id names; "" when it does not run.
	TargetPIDNS string
	// NodeName is the node's host name, which pods on its network see.
	NodeName string
	// Devices are the node's device nodes that could be needed: those at or
	// below each device's host_path; all of /dev for a privileged container.
	Devices []NodeDevice
	// SELinuxLevel has the categories that the pod has to itself, for labels
	// that nobody gave a level; "" where the policy knows no containers.
	SELinuxLevel string
	// Volumes are the images that mounts name, by the index of the mount.
	Volumes map[int]Volume
	// SeccompProfile is the file that SeccompPath named.
	SeccompProfile []byte
}

// builder carries one container through the parts of its spec. It is thrown
// away when Container returns.
type builder struct {
	in         ContainerInput
	sc         *criapi.LinuxContainerSecurityContext
	privileged bool
	runDir     string
	caps       *specs.LinuxCapabilities
	home       string // the user's home directory, from the image
	spec       *specs.Spec
}

// Container describes one container: its process, root, mounts, and the
// confinement around them. Everything that is wrong with the configs is said
// here, before anything was made.
func Container(in ContainerInput) (*specs.Spec, error) {
	b := &builder{in: in, sc: in.Config.GetLinux().GetSecurityContext(), runDir: runDirOr(in.RunDir)}
	b.privileged = b.sc.GetPrivileged()
	if err := b.check(); err != nil {
		return nil, err
	}
	if b.in.PodSpec == nil {
		pod, err := Pod(PodInput{ID: in.PodID, Config: in.Pod, RunDir: in.RunDir, Facts: in.Facts})
		if err != nil {
			return nil, err
		}
		b.in.PodSpec = pod
	}
	if b.in.Image == nil {
		b.in.Image = &ispec.Image{}
	}
	b.spec = &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{},
		Root:    &specs.Root{Path: b.rootfs(), Readonly: b.sc.GetReadonlyRootfs()},
		Linux:   &specs.Linux{},
	}
	// The order matters in two places: seccomp looks at the capabilities, and
	// the environment at the user.
	for _, part := range []func() error{
		b.setNamespaces, b.setCapabilities, b.setUser, b.setProcess, b.setProfiles,
		b.setMounts, b.setDevices, b.setResources, b.setAnnotations,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return b.spec, nil
}

func (b *builder) rootfs() string {
	if b.in.Rootfs != "" {
		return b.in.Rootfs
	}
	return b.runDir + "/rootfs"
}

// check refuses what has no counterpart in the spec.
func (b *builder) check() error {
	if err := CheckID("container id", b.in.ID); err != nil {
		return err
	}
	if err := CheckID("pod id", b.in.PodID); err != nil {
		return err
	}
	c := b.in.Config
	if c.GetMetadata().GetName() == "" {
		return badContainer("metadata.name", "is empty")
	}
	if why := checkName(c.GetMetadata().GetName()); why != "" {
		return badContainer("metadata.name", "%s", why)
	}
	if _, err := LogPath(b.in.Pod, c); err != nil {
		return err
	}
	if _, ok := criapi.Signal_name[int32(c.GetStopSignal())]; !ok {
		return badContainer("stop_signal", "unknown signal %d", int32(c.GetStopSignal()))
	}
	if len(c.GetCDIDevices()) > 0 {
		return badContainer("CDI_devices", "not yet supported")
	}
	// The pod may have been set up less carefully had it been known to be
	// privileged: the API wants it said at both.
	if b.privileged && !b.in.Pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return badContainer("linux.security_context.privileged", "the pod was not run with linux.security_context.privileged")
	}
	return nil
}

func (b *builder) setNamespaces() (err error) {
	if b.spec.Linux.Namespaces, err = b.namespaces(); err != nil {
		return err
	}
	// Joined by path; recorded because layers, volumes and owned files are
	// mapped with the same ranges.
	b.spec.Linux.UIDMappings = b.in.PodSpec.Linux.UIDMappings
	b.spec.Linux.GIDMappings = b.in.PodSpec.Linux.GIDMappings
	return nil
}

func (b *builder) setCapabilities() (err error) {
	b.caps, err = b.capabilities()
	b.spec.Process.Capabilities = b.caps
	return err
}

func (b *builder) setUser() (err error) {
	b.spec.Process.User, err = b.user()
	return err
}

// setProfiles sets what the security modules and seccomp enforce.
func (b *builder) setProfiles() (err error) {
	b.spec.Process.NoNewPrivileges = b.sc.GetNoNewPrivs()
	if b.spec.Process.ApparmorProfile, err = b.apparmor(); err != nil {
		return err
	}
	r := containerSeccomp(b.in.Config)
	r.caps, r.facts, r.file = b.caps.Bounding, b.in.Facts, b.in.SeccompProfile
	if b.spec.Linux.Seccomp, err = r.resolve(); err != nil {
		return err
	}
	if b.spec.Process.SelinuxLabel, b.spec.Linux.MountLabel, err = b.selinux(); err != nil {
		return err
	}
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths, err = b.hiddenPaths()
	return err
}

func (b *builder) setAnnotations() (err error) {
	requested := b.spec.Annotations
	if b.spec.Annotations, err = b.annotations(); err != nil {
		return err
	}
	for k, v := range requested {
		b.spec.Annotations[k] = v
	}
	return nil
}
