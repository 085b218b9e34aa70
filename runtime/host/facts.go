// Package host owns the facts about this kernel and machine: what it is, which
// calls it knows, which cgroup hierarchies it mounts, what this process may do.
// They are probed once and handed on as a plain value, so that the packages
// that decide by them (oci, runtime/compile) stay pure and can be tested with
// the facts of any machine. Any package above internal/linux may import it.
//
// Invariant: a Facts value never changes after Probe returned it, and nothing
// in it is a handle; it can be copied, compared and written as JSON.
package host

// Kernel is the running kernel's release, as far as decisions need it.
type Kernel struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
}

// AtLeast reports whether the kernel's release is major.minor or newer.
func (k Kernel) AtLeast(major, minor int) bool {
	return k.Major > major || k.Major == major && k.Minor >= minor
}

// Cgroup modes.
const (
	CgroupV1     = "v1"     // v1 hierarchies only, or a v2 mount without controllers
	CgroupHybrid = "hybrid" // v1 hierarchies, and a v2 mount that has controllers too
	CgroupV2     = "v2"     // one v2 hierarchy
)

// Cgroup drivers.
const (
	DriverCgroupfs = "cgroupfs" // we make directories
	DriverSystemd  = "systemd"  // systemd makes scopes and slices, and limits them
)

// Cgroup says where each controller is to be found. Controllers are named as
// the kernel does ("memory", "cpu"); hybrid machines have some on v1 and some
// on v2, so whoever acts on a controller looks it up here and assumes nothing.
type Cgroup struct {
	Mode string `json:"mode"`
	// Mounts holds the mount point of each v1 controller; named hierarchies
	// are keyed with their prefix ("name=systemd"). Empty in mode v2.
	Mounts map[string]string `json:"mounts,omitempty"`
	// Unified is the mount point of the v2 hierarchy, empty when there is none.
	Unified string `json:"unified,omitempty"`
	// UnifiedControllers are those that the root of the v2 hierarchy has.
	UnifiedControllers []string `json:"unifiedControllers,omitempty"`
	// Own is the cgroup of this process in each v1 hierarchy, and under the
	// key "" in the v2 hierarchy (cgroups(7), /proc/pid/cgroup).
	Own map[string]string `json:"own,omitempty"`
}

// Facts are what the rest of the runtime must know about the machine. The zero
// value is a machine that can do nothing; Reference is one for tests.
type Facts struct {
	Kernel Kernel `json:"kernel"`
	// Arch is the machine's architecture in Go's words ("amd64", "arm64").
	Arch string `json:"arch"`
	// PageSize is in bytes.
	PageSize int `json:"pageSize"`
	// CPUs is the number of CPUs that are online.
	CPUs int `json:"cpus"`
	// MemoryBytes is the memory that the kernel manages.
	MemoryBytes uint64 `json:"memoryBytes"`
	// BootID tells one boot from another (/proc/sys/kernel/random/boot_id).
	BootID string `json:"bootID"`

	// Caps has bit n set when this process can give capability n away: its
	// bounding set without what it is not permitted. capset(2) refuses more.
	Caps uint64 `json:"caps"`
	// LastCap is the highest capability that the kernel knows.
	LastCap int `json:"lastCap"`
	// NofileHard is our hard RLIMIT_NOFILE; without CAP_SYS_RESOURCE no
	// container gets more.
	NofileHard uint64 `json:"nofileHard"`
	// OOMScoreAdj is our own; without CanLowerOOM no container goes below it.
	OOMScoreAdj int  `json:"oomScoreAdj"`
	CanLowerOOM bool `json:"canLowerOOM"`

	// OverlayLowerdirPlus: fsconfig(2) "lowerdir+" one layer at a time (≥ 6.7).
	OverlayLowerdirPlus bool `json:"overlayLowerdirPlus"`
	// OverlayLayerFD: layers given to overlay as descriptors (≥ 6.13).
	OverlayLayerFD bool `json:"overlayLayerFD"`
	// IdmapMounts: mount_setattr(2) with MOUNT_ATTR_IDMAP.
	IdmapMounts bool `json:"idmapMounts"`
	// RecursiveReadonly: mount_setattr(2) with AT_RECURSIVE (≥ 5.12).
	RecursiveReadonly bool `json:"recursiveReadonly"`
	// UserNS, TimeNS, CgroupNS: the kernel makes such namespaces for us.
	UserNS   bool `json:"userNS"`
	TimeNS   bool `json:"timeNS"`
	CgroupNS bool `json:"cgroupNS"`
	// PidfdInfo: PIDFD_GET_INFO tells the exit code after the reap (≥ 6.15).
	PidfdInfo bool `json:"pidfdInfo"`

	// Resctrl is where the resctrl file system is mounted (Intel RDT, AMD QoS), empty when it is not.
	Resctrl string `json:"resctrl,omitempty"`

	// LSMs are the active security modules, empty when securityfs is not mounted.
	LSMs     []string `json:"lsms,omitempty"`
	AppArmor bool     `json:"appArmor"`
	SELinux  bool     `json:"selinux"`

	// Seccomp: the kernel takes filters (CONFIG_SECCOMP_FILTER).
	Seccomp bool `json:"seccomp"`
	// SeccompLib is the version of libseccomp that compiles profiles, filled
	// by whoever links it; empty when nobody does.
	SeccompLib string `json:"seccompLib,omitempty"`
	// SeccompAPI is what that library and this kernel can do together
	// (seccomp_api_get(3)).
	SeccompAPI uint `json:"seccompAPI,omitempty"`
	// SeccompActions are those that the kernel knows ("kill_process", "log").
	SeccompActions []string `json:"seccompActions,omitempty"`

	Cgroup Cgroup `json:"cgroup"`
	// CgroupDriver is who makes cgroups, DriverCgroupfs or DriverSystemd; filled
	// by whoever decides it. Empty is DriverCgroupfs.
	CgroupDriver string `json:"cgroupDriver,omitempty"`
	// RunTmpfs: /run is a tmpfs, so writing there costs no disk.
	RunTmpfs bool `json:"runTmpfs"`
	// SwapAccounting: the memory controller limits swap too.
	SwapAccounting bool `json:"swapAccounting"`
	// HugepageSizes are those of the kernel, in the words of the hugetlb
	// controller ("2MB", "1GB").
	HugepageSizes []string `json:"hugepageSizes,omitempty"`
}

// AtLeast reports whether the kernel's release is major.minor or newer.
func (f Facts) AtLeast(major, minor int) bool { return f.Kernel.AtLeast(major, minor) }

// HasCap reports whether capability n (capabilities(7)) can be given away.
func (f Facts) HasCap(n uint) bool { return n < 64 && f.Caps&(1<<n) != 0 }
