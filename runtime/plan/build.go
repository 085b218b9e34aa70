package plan

import "encoding/binary"

// The constructors: the only place besides the interpreters that knows which field holds what.

func op(kind Kind, side Side) Op { return Op{Kind: kind, Side: side, Slot: [2]Slot{NoSlot, NoSlot}} }

func named(kind Kind, side Side, str ...string) Op {
	o := op(kind, side)
	copy(o.Str[:], str)
	return o
}

// MakeCgroup makes the group at path with the limits given as canonical JSON of specs.LinuxResources.
func MakeCgroup(path string, resources []byte) Op {
	o := named(CgroupCreate, Parent, path)
	o.Blob = resources
	return o
}

// StartUnit has systemd make a unit (see runtime/unit) whose group is at path, with the limits given as for MakeCgroup.
// Properties are "Name=value" with the value in GVariant's text form, beyond those that follow from the limits.
func StartUnit(unit, path string, properties []string, resources []byte) Op {
	o := named(UnitStart, Parent, unit, path)
	o.List[0], o.Blob = properties, resources
	return o
}

// Open opens path into a slot; in is InHost, InPrivate or InContainer.
func Open(out Slot, path string, flags, in uint64) Op {
	o := named(OpenFile, Parent, path)
	o.Slot[0], o.Num[0], o.Num[1] = out, flags, in
	return o
}

// OpenOther is Open of a namespace that must not be the runtime's own of this type ("mnt", "net" …).
func OpenOther(out Slot, path, typ string, in uint64) Op {
	o := Open(out, path, OpenRead, in)
	o.Str[1] = typ
	return o
}

// MakeFifo makes a FIFO at path, owned by uid and gid as the host sees them, and opens it.
func MakeFifo(out Slot, path string, uid, gid uint32, flags uint64) Op {
	o := named(Fifo, Parent, path)
	o.Slot[0], o.Num[0], o.Num[1], o.Num[2] = out, uint64(uid), uint64(gid), flags
	return o
}

// MakeNamespaces makes a pod's namespaces on a thread. Sysctls are "net/ipv4/x=1" pairs.
func MakeNamespaces(flags uint64, hostname, domainname string, sysctls []string) Op {
	o := named(NsCreate, Parent, hostname, domainname)
	o.Num[0], o.List[0] = flags, sysctls
	return o
}

// Pin binds the namespace of a type (net, ipc, uts, user, pid …) to path.
func Pin(typ, path string, in uint64) Op {
	o := named(NsPin, Parent, typ, path)
	o.Num[0] = in
	return o
}

// MountInPrivate mounts a file system at path in the private mount namespace.
func MountInPrivate(typ, path string, options []string, attrs uint64) Op {
	o := named(MountPrivate, Parent, typ, path)
	o.List[0], o.Num[0] = options, attrs
	return o
}

// Tree describes an OpenTree.
type Tree struct {
	Source      string
	Flags       uint64 // BindRecursive, BindOptional, BindMapRecursive
	In          uint64 // InHost, InPrivate, InContainer
	Propagation uint64
	UserNS      Slot // idmap the clone with this user namespace; NoSlot: do not
}

// CloneTree clones a mount into a slot.
func CloneTree(side Side, out Slot, t Tree) Op {
	o := named(OpenTree, side, t.Source)
	o.Slot[0], o.Slot[1] = out, t.UserNS
	o.Num[0], o.Num[1], o.Num[2] = t.Flags, t.In, t.Propagation
	return o
}

// Overlay describes a RootfsOverlay.
type Overlay struct {
	Lower       []string // top first
	Upper, Work string
	Options     []string // beyond those that the engine always sets
	Way         uint64
	Attrs       uint64
	UserNS      Slot // idmap the lower layers
}

// MakeOverlay makes a detached overlay in a slot.
func MakeOverlay(out Slot, v Overlay) Op {
	o := named(RootfsOverlay, Parent, v.Upper, v.Work)
	o.List[0], o.List[1] = v.Lower, v.Options
	o.Slot[0], o.Slot[1] = out, v.UserNS
	o.Num[0], o.Num[1] = v.Way, v.Attrs
	return o
}

// HostRootfs attaches the tree to a host path.
func HostRootfs(tree Slot, path string) Op {
	o := named(RootfsHost, Parent, path)
	o.Slot[0] = tree
	return o
}

// WriteState puts the container's state JSON with the given status into a slot. The engine fills in the pid.
func WriteState(out Slot, status string, template []byte) Op {
	o := named(StateFile, Parent, status)
	o.Slot[0], o.Blob = out, template
	return o
}

// MakeProcess clones init into new namespaces.
func MakeProcess(flags uint64) Op {
	o := op(Clone, Parent)
	o.Num[0] = flags
	return o
}

// MapIDs writes the maps, each line "container host size".
func MapIDs(uids, gids string, denySetgroups bool) Op {
	o := named(IDMap, Parent, uids, gids)
	o.Num[0] = bit(denySetgroups)
	return o
}

// MakeMap makes a user namespace for its maps, each line "container host size".
func MakeMap(out Slot, uids, gids string) Op {
	o := named(MapNS, Parent, uids, gids)
	o.Slot[0] = out
	return o
}

// RunHook runs a hook; state is the slot of its standard input on the init side, NoSlot on the parent's.
func RunHook(side Side, state Slot, kind, path string, args, env []string, timeout uint64) Op {
	o := named(Hook, side, kind, path)
	o.Slot[0], o.List[0], o.List[1], o.Num[0] = state, args, env, timeout
	return o
}

// Meet is a barrier where waits (InitWaits or ParentWaits) waits; slots first … first+n-1 cross over.
func Meet(name string, waits uint64, first Slot, n int) Op {
	o := named(Barrier, Both, name)
	o.Num[0], o.Num[1], o.Num[2] = waits, uint64(int64(first)), uint64(n)
	return o
}

// JoinNS enters the namespaces of flags through the slot.
func JoinNS(ns Slot, flags uint64) Op {
	o := op(Join, Init)
	o.Slot[0], o.Num[0] = ns, flags
	return o
}

// UnshareNS makes new namespaces.
func UnshareNS(flags uint64) Op {
	o := op(Unshare, Init)
	o.Num[0] = flags
	return o
}

// UnshareVisibly makes a user namespace whose maps a parent without privileges can write.
func UnshareVisibly(flags uint64) Op {
	o := UnshareNS(flags)
	o.Num[1] = bit(true)
	return o
}

// Bare makes an init op without arguments: Fork, Setsid, NoNewPrivs, Pause, Exit, MapRoot.
func Bare(kind Kind) Op { return op(kind, Init) }

// JoinCgroup writes 0 to the join file of one controller.
func JoinCgroup(file Slot, controller string) Op {
	o := named(CgroupJoin, Init, controller)
	o.Slot[0] = file
	return o
}

// SetOOMScoreAdj sets the score adjustment, -1000 … 1000.
func SetOOMScoreAdj(v int) Op {
	o := op(OOMScoreAdj, Init)
	o.Num[0] = uint64(int64(v))
	return o
}

// Text makes an init op that has only strings: Sysctl (path with slashes, value), Hostname, Domainname,
// TimeOffset, LSMExec (file below /proc/self/attr, value), Keyring, Chdir.
func Text(kind Kind, str ...string) Op { return named(kind, Init, str...) }

// SetPropagation sets the propagation of the mount at path.
func SetPropagation(path string, flags uint64) Op {
	o := named(Propagation, Init, path)
	o.Num[0] = flags
	return o
}

// PlaceRoot attaches the tree at path and opens it as root.
func PlaceRoot(tree, root Slot, path string) Op {
	o := named(AttachRoot, Init, path)
	o.Slot[0], o.Slot[1] = tree, root
	return o
}

// FS describes a MountFS. Options are alternating keys and values; an empty value makes a flag.
type FS struct {
	Type, Target, Source string
	Options              []string
	Attrs                uint64
	Create               uint64
	Propagation          uint64
	LikeTarget           bool // its root directory gets the mode of the one that it covers
}

// NewMount makes and attaches a file system.
func NewMount(root Slot, m FS) Op {
	o := named(MountFS, Init, m.Type, m.Target, m.Source)
	o.Slot[0], o.List[0] = root, m.Options
	o.Num[0], o.Num[1], o.Num[2], o.Num[3] = m.Attrs, m.Create, m.Propagation, bit(m.LikeTarget)
	return o
}

// BindMount describes a MountBind: from Tree if it is a slot, else from Source.
type BindMount struct {
	Tree           Slot
	Source, Target string
	Set, Clear     uint64
	RecSet         uint64 // of the whole tree, after Set and Clear
	RecClear       uint64
	Flags          uint64
	Propagation    uint64
	Create         uint64
}

// Bind attaches a clone of a mount.
func Bind(root Slot, m BindMount) Op {
	o := named(MountBind, Init, m.Source, m.Target)
	o.Slot[0], o.Slot[1] = root, m.Tree
	o.Num[0], o.Num[1], o.Num[2], o.Num[3], o.Num[4] = m.Set, m.Clear, m.Flags, m.Propagation, m.Create
	o.Num[5] = m.RecSet<<32 | m.RecClear // each fits: mount_setattr(2) has less than 32 attributes
	return o
}

// ChangeAttr changes the attributes and the propagation of the mount at path.
func ChangeAttr(root Slot, path string, set, clr, flags, propagation uint64) Op {
	o := named(SetAttr, Init, path)
	o.Slot[0] = root
	o.Num[0], o.Num[1], o.Num[2], o.Num[3] = set, clr, flags, propagation
	return o
}

// MakeDir makes a directory and its parents inside the root.
func MakeDir(root Slot, path string, mode uint32) Op {
	o := named(Mkdir, Init, path)
	o.Slot[0], o.Num[0] = root, uint64(mode)
	return o
}

// MakeNode makes a device node; mode includes the S_IF type bits.
func MakeNode(root Slot, path string, mode, major, minor, uid, gid uint32) Op {
	o := named(Mknod, Init, path)
	o.Slot[0] = root
	o.Num[0], o.Num[1], o.Num[2], o.Num[3] = uint64(mode), uint64(major)<<32|uint64(minor), uint64(uid), uint64(gid)
	return o
}

// MakeSymlink makes path point to target.
func MakeSymlink(root Slot, target, path string) Op {
	o := named(Symlink, Init, target, path)
	o.Slot[0] = root
	return o
}

// Hide is a Mask of path, Lock makes it read-only.
func Hide(root Slot, path string) Op { return at(Mask, root, path) }

// Lock makes path read-only.
func Lock(root Slot, path string) Op { return at(Readonly, root, path) }

func at(kind Kind, root Slot, path string) Op {
	o := named(kind, Init, path)
	o.Slot[0] = root
	return o
}

// PivotRoot makes the slot the root.
func PivotRoot(root Slot, noPivot bool) Op {
	o := op(Pivot, Init)
	o.Slot[0], o.Num[0] = root, bit(noPivot)
	return o
}

// OpenConsole opens a terminal of the given size, owned by uid; with bind it also becomes /dev/console.
func OpenConsole(master Slot, width, height uint, uid uint32, bind bool) Op {
	o := op(Console, Init)
	o.Slot[0] = master
	o.Num[0], o.Num[1], o.Num[2], o.Num[3] = uint64(width), uint64(height), uint64(uid), bit(bind)
	return o
}

// SetStdio makes a slot standard stream fd.
func SetStdio(from Slot, fd uint64) Op {
	o := op(Stdio, Init)
	o.Slot[0], o.Num[0] = from, fd
	return o
}

// WaitGate waits for one byte on the FIFO.
func WaitGate(fifo Slot) Op {
	o := op(Gate, Init)
	o.Slot[0] = fifo
	return o
}

// Limit sets a resource limit by number.
func Limit(resource, soft, hard uint64) Op { return numbers(Rlimit, resource, soft, hard) }

func numbers(kind Kind, v ...uint64) Op {
	o := op(kind, Init)
	copy(o.Num[:], v)
	return o
}

// Numbers makes an init op that has only numbers: Personality, IOPriority, Scheduler.
func Numbers(kind Kind, v ...uint64) Op { return numbers(kind, v...) }

// SetBounding keeps only these capabilities in the bounding set.
func SetBounding(caps uint64) Op { return numbers(Bounding, caps) }

// SetCaps sets the four sets.
func SetCaps(effective, permitted, inheritable, ambient uint64) Op {
	return numbers(Caps, effective, permitted, inheritable, ambient)
}

// SetUser becomes the user. A nil umask keeps the one there is.
func SetUser(uid, gid uint32, groups []uint32, umask *uint32) Op {
	o := numbers(User, uint64(uid), uint64(gid), 0o022, uint64(len(groups)))
	if umask != nil {
		o.Num[2], o.Num[4] = uint64(*umask), 1
	}
	for _, g := range groups {
		o.Blob = binary.LittleEndian.AppendUint32(o.Blob, g)
	}
	return o
}

// LoadSeccomp loads a filter; notify is NoSlot without a listener. profile describes it for the reader.
func LoadSeccomp(notify Slot, profile string, filter []byte, flags uint64) Op {
	o := named(Seccomp, Init, profile)
	o.Slot[0], o.Blob, o.Num[0] = notify, filter, flags
	return o
}

// Send sends the slot's descriptor to a listening UNIX socket with the payload.
func Send(fd Slot, socket, payload string) Op {
	o := named(SendFD, Parent, socket, payload)
	o.Slot[0] = fd
	return o
}

// SendState sends the slot's descriptor with a container process state made from the template.
func SendState(fd Slot, socket string, template []byte) Op {
	o := Send(fd, socket, "")
	o.Blob = template
	return o
}

// Execute execs the first candidate that exists.
func Execute(candidates, args, env []string, preserveFDs uint) Op {
	o := numbers(Exec, uint64(preserveFDs))
	o.List = [3][]string{candidates, args, env}
	return o
}

// SetAffinity pins the process to the processors of a mask of 64-bit words; cpus words it for the reader.
func SetAffinity(cpus string, mask []byte) Op {
	o := named(CPUAffinity, Init, cpus)
	o.Blob = mask
	return o
}

// SetMemoryPolicy sets where memory comes from; nodes words the mask for the reader.
func SetMemoryPolicy(mode uint64, nodes string, mask []byte) Op {
	o := named(MemoryPolicy, Init, nodes)
	o.Num[0], o.Blob = mode, mask
	return o
}

// MoveDevice moves a network device into the process's network namespace under a name.
func MoveDevice(device, name string) Op { return named(NetDevice, Parent, device, name) }

// CopyToTmpfs makes a tmpfs in a slot with a copy of what is at path below root.
func CopyToTmpfs(out, root Slot, path string, options []string, attrs uint64) Op {
	o := named(CopyUp, Parent, path)
	o.Slot[0], o.Slot[1], o.List[0], o.Num[0] = out, root, options, attrs
	return o
}

// PrepareResctrl makes or checks a group; monitor is the monitoring group's directory, or empty.
func PrepareResctrl(group, monitor string, schemata []string, makes uint64) Op {
	o := named(Resctrl, Parent, group, monitor)
	o.List[0], o.Num[0] = schemata, makes
	return o
}

// Find looks for the program that Execute will be of.
func Find(candidates []string, name string) Op {
	o := named(FindProgram, Init, name)
	o.List[0] = candidates
	return o
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
