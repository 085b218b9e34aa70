package plan

// Kind is the kind of an op. The numbers are part of the encoding: new kinds go to the end.
type Kind uint16

// The kinds. The table below says what each needs, makes and undoes.
const (
	_ Kind = iota
	CgroupCreate
	OpenFile
	Fifo
	NsCreate
	NsPin
	MountPrivate
	OpenTree
	RootfsOverlay
	RootfsHost
	StateFile
	Clone
	IDMap
	Hook
	Barrier
	Join
	Unshare
	Fork
	Setsid
	CgroupJoin
	OOMScoreAdj
	Sysctl
	Hostname
	Domainname
	TimeOffset
	LSMExec
	Propagation
	AttachRoot
	MountFS
	MountBind
	SetAttr
	Mkdir
	Mknod
	Symlink
	Mask
	Readonly
	Pivot
	Console
	Stdio
	Gate
	Rlimit
	Personality
	IOPriority
	Scheduler
	Keyring
	Chdir
	Bounding
	User
	Caps
	NoNewPrivs
	Seccomp
	SendFD
	Exec
	Pause
	Exit
	MapRoot
	MapNS
	CPUAffinity
	MemoryPolicy
	NetDevice
	CopyUp
	Resctrl
	FindProgram
	UnitStart
	Loopback
	kinds
)

// Wheres of an OpenTree, OpenFile or NsPin: in which mount namespace the parent side looks a path up.
const (
	InHost      uint64 = 0 // the daemon's own
	InPrivate   uint64 = 1 // the one that holds the pods' pins
	InContainer uint64 = 2 // the new process's, entered by a thread that keeps the host's credentials
)

// Ways of making an overlay rootfs, best first; runtime/host says which the kernel has.
const (
	OverlayLayerFDs  uint64 = 0 // ≥ 6.13: every layer handed over as a descriptor
	OverlayLowerPlus uint64 = 1 // ≥ 6.7: lowerdir+ by path
	OverlayMount     uint64 = 2 // older: mount(2) with short names in a mount namespace of its own
)

// Waits of a Barrier.
const (
	InitWaits   uint64 = 1
	ParentWaits uint64 = 2
)

// Flags of a MountBind or an OpenTree.
const (
	BindRecursive     uint64 = 1 << iota // the source's submounts come along (rbind)
	BindRecursiveAttr                    // the attributes go to the submounts too (rro, rnosuid …)
	BindOptional                         // a missing source is not an error
	BindMapRecursive                     // the ids of the submounts are mapped too (ridmap)
)

// Makes of a Resctrl: what to do about a group that is there, or not.
const (
	ResctrlOwn    uint64 = 0 // made if missing, and removed with the container
	ResctrlShared uint64 = 1 // made if missing, and left
	ResctrlGiven  uint64 = 2 // must be there
)

// format says how the text form prints a number.
type format uint8

const (
	dec format = iota
	sdec
	octal
	hexa
	cloneFlags
	mountAttrs
	treeAttrs
	propFlags
	capSet
	device
	whereName
	wayName
	waitName
	bindFlags
	boolean
	openFlags
	createName
	seccompFlags
	resourceName
	memPolicy
	makeName
)

type num struct {
	name   string
	format format
}

// def is one row of the op table.
type def struct {
	kind   Kind
	name   string
	c      string
	sides  [2]Side // allowed; the second may be zero
	slots  [2]string
	strs   [4]string
	lists  [3]string
	blob   string
	nums   [6]num
	doc    string // what it does and why it is safe
	needs  string
	makes  string
	undone string
	repeat string
}

// makesSlot: a slot whose name begins with ">" is filled by the op.
func (d *def) makesSlot(i int) bool { return d.slots[i] != "" && d.slots[i][0] == '>' }

func (d *def) allows(s Side) bool { return s != 0 && (d.sides[0] == s || d.sides[1] == s) }

func lookup(k Kind) (*def, bool) {
	if k == 0 || int(k) >= len(table) || table[k].kind != k {
		return nil, false
	}
	return &table[k], true
}

// Name returns the op's name as the text form and docs/ops.md have it.
func (k Kind) Name() string {
	if d, ok := lookup(k); ok {
		return d.name
	}
	return "unknown"
}

// String is Name.
func (k Kind) String() string { return k.Name() }

const (
	withProcess = "dies with the process"
	withMntns   = "lives and dies in the container's mount namespace"
)

var table = [kinds]def{
	CgroupCreate: {name: "cgroup_create", c: "CGROUP_CREATE", sides: [2]Side{Parent},
		strs: [4]string{"path"}, blob: "resources",
		doc:    "Makes the control group in every hierarchy and sets its limits and device rules (cgroups(7)). Nobody joins it yet: limits are in force before the first process is in.",
		needs:  "CAP_SYS_ADMIN or a delegated parent group",
		makes:  "object cgroup",
		undone: "by killing what is in it and rmdir, deepest first",
		repeat: "yes: an existing group is adjusted"},
	UnitStart: {name: "unit_start", c: "UNIT_START", sides: [2]Side{Parent},
		strs: [4]string{"unit", "path"}, lists: [3]string{"properties"}, blob: "resources",
		doc:    "Has systemd make a transient unit and its control group (systemd.scope(5), systemd.slice(5)), by D-Bus: a scope around the cloned process, since it takes none without a process, or a slice. What systemd has properties for is limited by them, so that a daemon-reload keeps it; then all limits and device rules are written as for cgroup_create, and the process is put into the hierarchies that systemd leaves alone. Init does nothing before: it waits at the next barrier.",
		needs:  "systemd as PID 1",
		makes:  "object cgroup, named by its unit",
		undone: "by killing what is in it, StopUnit, rmdir of what is left, ResetFailedUnit",
		repeat: "a slice: yes; a scope: no"},
	OpenFile: {name: "open", c: "OPEN", sides: [2]Side{Parent},
		slots: [2]string{">out"}, strs: [4]string{"path"}, nums: [6]num{{"flags", openFlags}, {"in", whereName}},
		doc:   "Opens a file for the other side: cgroup join files, namespaces, /dev/null, the start gate. The child gets the descriptor, never the path.",
		needs: "the file", makes: "a descriptor", undone: "closed after the clone", repeat: "yes"},
	Fifo: {name: "fifo", c: "FIFO", sides: [2]Side{Parent},
		slots: [2]string{">out"}, strs: [4]string{"path"}, nums: [6]num{{"uid", dec}, {"gid", dec}, {"flags", openFlags}},
		doc:   "Makes a FIFO and opens it. Standard streams are opened read-write, so that the container never meets SIGPIPE when the reader of its logs is gone, and owned by the container's user, so that it can reopen /dev/stdout.",
		needs: "the container's directory under /run", makes: "a FIFO inside an object dir", undone: "with the directory", repeat: "yes: an existing FIFO is opened"},
	NsCreate: {name: "ns_create", c: "NS_CREATE", sides: [2]Side{Parent},
		strs: [4]string{"hostname", "domainname"}, lists: [3]string{"sysctls"}, nums: [6]num{{"flags", cloneFlags}},
		doc:   "Unshares a pod's namespaces on a thread that is thrown away afterwards, and sets host name and sysctls inside them. A thread is enough when there is no user or PID namespace to make: nothing is forked.",
		needs: "CAP_SYS_ADMIN", makes: "namespaces that live until pinned", undone: "with the thread", repeat: "no"},
	NsPin: {name: "ns_pin", c: "NS_PIN", sides: [2]Side{Parent},
		strs: [4]string{"type", "path"}, nums: [6]num{{"in", whereName}},
		doc:   "Binds a namespace file to a path, so that the namespace outlives every process (namespaces(7)).",
		needs: "ns_create or a cloned process", makes: "object namespace", undone: "by umount with MNT_DETACH and unlink", repeat: "yes: an existing pin is replaced"},
	MountPrivate: {name: "mount_private", c: "MOUNT_PRIVATE", sides: [2]Side{Parent},
		strs: [4]string{"type", "path"}, lists: [3]string{"options"}, nums: [6]num{{"attrs", mountAttrs}},
		doc:   "Mounts a file system in the daemon's private mount namespace (a pod's /dev/shm): the host's mount table does not grow with the number of pods.",
		needs: "CAP_SYS_ADMIN", makes: "object mount", undone: "by umount with MNT_DETACH", repeat: "yes: an existing mount is kept"},
	MapNS: {name: "map_ns", c: "MAP_NS", sides: [2]Side{Parent},
		slots: [2]string{">out"}, strs: [4]string{"uids", "gids"},
		doc:   "Makes a user namespace that nobody lives in: an idmapped mount takes its maps (mount_setattr(2)). The process that it begins with is stopped before its first instruction, and killed.",
		needs: "CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID", makes: "a descriptor", undone: "with the descriptor", repeat: "yes"},
	OpenTree: {name: "open_tree", c: "OPEN_TREE", sides: [2]Side{Parent, Init},
		slots: [2]string{">out", "userns"}, strs: [4]string{"source"}, nums: [6]num{{"flags", bindFlags}, {"in", whereName}, {"propagation", propFlags}},
		doc:   "Clones a mount as a detached tree. For a container in a user namespace the parent does it, on a thread with the host's credentials inside the container's own mount namespace: a clone taken in the host's namespace would propagate back and let the container's root clear ro, nosuid, nodev and noexec. Propagation and the id map are set before the tree is attached: of a mount that anybody can see the kernel changes no map.",
		needs: "CAP_SYS_ADMIN over the mount namespace", makes: "a descriptor", undone: "with the descriptor", repeat: "yes"},
	RootfsOverlay: {name: "rootfs_overlay", c: "ROOTFS_OVERLAY", sides: [2]Side{Parent},
		slots: [2]string{">out", "userns"}, strs: [4]string{"upper", "work"}, lists: [3]string{"lower", "options"}, nums: [6]num{{"way", wayName}, {"attrs", mountAttrs}},
		doc:   "Makes the root file system, or the volume of an image, as a detached overlay mount. With a user namespace only the lower layers are idmapped: an idmapped upper directory comes up silently read-only. One that has an upper directory is checked to be writable.",
		needs: "CAP_SYS_ADMIN; layer directories", makes: "a detached mount", undone: "with the descriptor", repeat: "no: an upper directory serves one mount"},
	RootfsHost: {name: "rootfs_host", c: "ROOTFS_HOST", sides: [2]Side{Parent},
		slots: [2]string{"tree"}, strs: [4]string{"path"},
		doc:   "Attaches the detached root file system to a host path. Only when hooks, an external runtime or a restore must see it there.",
		needs: "CAP_SYS_ADMIN", makes: "object mount", undone: "by umount with MNT_DETACH", repeat: "no"},
	StateFile: {name: "state", c: "STATE", sides: [2]Side{Parent},
		slots: [2]string{">out"}, strs: [4]string{"status"}, blob: "template",
		doc:   "Writes the container's state (runtime-spec, runtime.md, State) into a memory file for the hooks that init runs.",
		needs: "a cloned process", makes: "a descriptor", undone: "with the descriptor", repeat: "yes"},
	Clone: {name: "clone", c: "CLONE", sides: [2]Side{Parent},
		slots: [2]string{"cgroup"}, nums: [6]num{{"flags", cloneFlags}},
		doc:   "Makes the new process from the sealed init binary, by descriptor (CVE-2019-5736), with the slots filled so far. Its parent is the monitor, or the caller of mini-runc. With a directory of the v2 hierarchy it begins its life in that group (clone3(2), CLONE_INTO_CGROUP): a write to cgroup.procs would take a lock over all processes.",
		needs: "the slots above", makes: "object process", undone: "by SIGKILL through its pidfd", repeat: "no"},
	IDMap: {name: "id_map", c: "ID_MAP", sides: [2]Side{Parent},
		strs: [4]string{"uids", "gids"}, nums: [6]num{{"deny_setgroups", boolean}},
		doc:   "Writes /proc/PID/uid_map and gid_map of the new user namespace (user_namespaces(7)).",
		needs: "CAP_SETUID and CAP_SETGID over the parent namespace, or newuidmap", makes: "nothing", undone: withProcess, repeat: "no: the maps can be written once"},
	Hook: {name: "hook", c: "HOOK", sides: [2]Side{Parent, Init},
		slots: [2]string{"state"}, strs: [4]string{"kind", "path"}, lists: [3]string{"args", "env"}, nums: [6]num{{"timeout", dec}},
		doc:   "Runs one hook with the state on its standard input and waits for it; the timeout is in seconds, 0 is none (runtime-spec, config.md, POSIX-platform Hooks). On the init side errno tells what went wrong: ECHILD, it failed, and its wait status is in the progress page; ETIME, it was killed after the timeout; any other, it could not be executed. A hook of the parent's side runs in the bundle, one of init's in the root file system: that is where hooks are used to be.",
		needs: "the program", makes: "nothing of ours", undone: "–", repeat: "no: hooks run once"},
	Barrier: {name: "barrier", c: "BARRIER", sides: [2]Side{Both},
		strs: [4]string{"name"}, nums: [6]num{{"waits", waitName}, {"first", sdec}, {"slots", dec}},
		doc:   "One side waits until the other has come this far. The descriptors of slots first … first+slots-1 cross over with it. A message is {u32 index of the op, u32 status} with at most 128 descriptors; more of them take more messages of the same index. Where init waits, a status other than 0, or end of file, ends it with ECANCELED. Init does not announce that it waits: if the parent must know, a barrier where the parent waits comes first.",
		needs: "the sync socket", makes: "nothing", undone: "–", repeat: "no"},
	Join: {name: "join", c: "JOIN", sides: [2]Side{Init},
		slots: [2]string{"ns"}, nums: [6]num{{"type", cloneFlags}},
		doc:   "Enters the namespace or, for a pidfd, all the named namespaces of that process (setns(2)). The kernel checks the type.",
		needs: "CAP_SYS_ADMIN over it", makes: "nothing", undone: withProcess, repeat: "yes"},
	Unshare: {name: "unshare", c: "UNSHARE", sides: [2]Side{Init},
		nums:  [6]num{{"flags", cloneFlags}, {"visible", boolean}},
		doc:   "Makes new namespaces for this process (unshare(2)): the cgroup namespace after the cgroups were joined, the others after the user namespace that shall own them. With visible the files of this process in /proc stay its user's until the next op that hides it, so that a parent without privileges can write the maps.",
		needs: "CAP_SYS_ADMIN", makes: "namespaces", undone: withProcess, repeat: "no"},
	Fork: {name: "fork", c: "FORK", sides: [2]Side{Init},
		doc:   "Goes on in a child that has the same parent (CLONE_PARENT): PID and time namespaces take effect for children only. The new pid is stored in the progress page; the first process exits with status 0.",
		needs: "nothing", makes: "the process that stays", undone: withProcess, repeat: "no"},
	Setsid: {name: "setsid", c: "SETSID", sides: [2]Side{Init},
		doc:   "Starts a session: no controlling terminal is inherited.",
		needs: "not a group leader", makes: "nothing", undone: withProcess, repeat: "yes: EPERM of a leader is success"},
	CgroupJoin: {name: "cgroup_join", c: "CGROUP_JOIN", sides: [2]Side{Init},
		slots: [2]string{"file"}, strs: [4]string{"controller"},
		doc:   "Moves itself into the group by writing 0. On v1 into tasks: cgroup.procs takes a lock over all processes and costs milliseconds. Memory comes last, just before exec, so that the smallest limit holds the program only.",
		needs: "the opened file", makes: "nothing", undone: withProcess, repeat: "yes"},
	OOMScoreAdj: {name: "oom_score_adj", c: "OOM_SCORE_ADJ", sides: [2]Side{Init},
		nums:  [6]num{{"value", sdec}},
		doc:   "Writes /proc/self/oom_score_adj through the host's procfs, before the root changes (CVE-2025-52881).",
		needs: "CAP_SYS_RESOURCE to lower it", makes: "nothing", undone: withProcess, repeat: "yes"},
	Sysctl: {name: "sysctl", c: "SYSCTL", sides: [2]Side{Init},
		strs:  [4]string{"path", "value"},
		doc:   "Writes a namespaced kernel parameter through the host's procfs, before the root changes: no mount of the image can redirect it (CVE-2025-52881).",
		needs: "its namespace", makes: "nothing", undone: "with the namespace", repeat: "yes"},
	Hostname: {name: "hostname", c: "HOSTNAME", sides: [2]Side{Init}, strs: [4]string{"name"},
		doc: "sethostname(2) in the UTS namespace.", needs: "a UTS namespace of its own", makes: "nothing", undone: "with the namespace", repeat: "yes"},
	Domainname: {name: "domainname", c: "DOMAINNAME", sides: [2]Side{Init}, strs: [4]string{"name"},
		doc: "setdomainname(2) in the UTS namespace.", needs: "a UTS namespace of its own", makes: "nothing", undone: "with the namespace", repeat: "yes"},
	TimeOffset: {name: "time_offset", c: "TIME_OFFSET", sides: [2]Side{Init}, strs: [4]string{"offsets"},
		doc: "Writes /proc/self/timens_offsets (time_namespaces(7)), before the fork that enters the time namespace.", needs: "an unshared time namespace", makes: "nothing", undone: "with the namespace", repeat: "yes"},
	LSMExec: {name: "lsm_exec", c: "LSM_EXEC", sides: [2]Side{Init}, strs: [4]string{"file", "value"},
		doc: "Sets the AppArmor profile or SELinux label that takes effect at exec, through the host's procfs before the root changes (CVE-2025-52881).", needs: "the module", makes: "nothing", undone: withProcess, repeat: "yes"},
	Propagation: {name: "propagation", c: "PROPAGATION", sides: [2]Side{Init},
		strs: [4]string{"path"}, nums: [6]num{{"flags", propFlags}},
		doc:   "Sets the propagation of a mount (mount(2)). The first one makes / a slave or private, so that nothing that init mounts reaches the host.",
		needs: "a mount namespace of its own", makes: "nothing", undone: withMntns, repeat: "yes"},
	AttachRoot: {name: "attach_root", c: "ATTACH_ROOT", sides: [2]Side{Init},
		slots: [2]string{"tree", ">root"}, strs: [4]string{"path"},
		doc:   "Attaches the detached root file system and opens it. All later targets are resolved below that descriptor with openat2(RESOLVE_IN_ROOT). Without a tree the root is the directory at path, bound onto itself with what is mounted in it.",
		needs: "the tree", makes: "a mount", undone: withMntns, repeat: "no"},
	MountFS: {name: "mount", c: "MOUNT_FS", sides: [2]Side{Init},
		slots: [2]string{"root"}, strs: [4]string{"type", "target", "source"}, lists: [3]string{"options"}, nums: [6]num{{"attrs", mountAttrs}, {"create", createName}, {"propagation", propFlags}, {"like_target", boolean}},
		doc:   "Makes a file system and attaches it (fsopen(2), move_mount(2)). With like_target its directory gets the mode of the one it covers. The target is a descriptor that was resolved inside the root, so a symbolic link of the image cannot lead elsewhere (CVE-2021-30465); proc and sysfs refuse a target that is a link (CVE-2019-19921).",
		needs: "CAP_SYS_ADMIN over the mount namespace", makes: "a mount; with create, its directory", undone: withMntns, repeat: "no"},
	MountBind: {name: "bind", c: "MOUNT_BIND", sides: [2]Side{Init},
		slots: [2]string{"root", "tree"}, strs: [4]string{"source", "target"}, nums: [6]num{{"set", mountAttrs}, {"clear", mountAttrs}, {"flags", bindFlags}, {"propagation", propFlags}, {"create", createName}, {"rec", treeAttrs}},
		doc:   "Attaches a clone of a mount: of the tree handed over, or of source, looked up in the container's mount namespace before the root changes. Attributes, then those of the whole tree (rec: set in the upper half, cleared in the lower), and propagation are set on the clone before it becomes visible: once it is, another container that shares the volume could swap the target. A missing target is made to match the source. No link of the image leads the target into a procfs (CVE-2019-19921). A tree that is optional is missing when its slot is empty or holds a descriptor that is not O_PATH (at a barrier something must cross).",
		needs: "CAP_SYS_ADMIN over the mount namespace", makes: "a mount", undone: withMntns, repeat: "no"},
	SetAttr: {name: "set_attr", c: "SET_ATTR", sides: [2]Side{Init},
		slots: [2]string{"root"}, strs: [4]string{"path"}, nums: [6]num{{"set", mountAttrs}, {"clear", mountAttrs}, {"flags", bindFlags}, {"propagation", propFlags}},
		doc:   "Changes the attributes of a mount inside the root (mount_setattr(2)): the read-only root, remounts, rootfsPropagation.",
		needs: "a mount at path", makes: "nothing", undone: withMntns, repeat: "yes"},
	Mkdir: {name: "mkdir", c: "MKDIR", sides: [2]Side{Init},
		slots: [2]string{"root"}, strs: [4]string{"path"}, nums: [6]num{{"mode", octal}},
		doc:   "Makes a directory and its missing parents inside the root, one component at a time below a descriptor (CVE-2024-45310).",
		needs: "a writable root", makes: "directories in the container's layer", undone: "with the layer", repeat: "yes"},
	Mknod: {name: "mknod", c: "MKNOD", sides: [2]Side{Init},
		slots: [2]string{"root"}, strs: [4]string{"path"}, nums: [6]num{{"mode", octal}, {"dev", device}, {"uid", dec}, {"gid", dec}},
		doc:   "Makes a device node inside the root, through a descriptor of its directory.",
		needs: "CAP_MKNOD", makes: "a node on the container's /dev", undone: withMntns, repeat: "yes: an existing node of the same number is kept"},
	Symlink: {name: "symlink", c: "SYMLINK", sides: [2]Side{Init},
		slots: [2]string{"root"}, strs: [4]string{"target", "path"},
		doc:   "Makes a symbolic link inside the root, through a descriptor of its directory.",
		needs: "a writable directory", makes: "a link", undone: withMntns, repeat: "yes: an existing one is kept"},
	Mask: {name: "mask", c: "MASK", sides: [2]Side{Init},
		slots: [2]string{"root"}, strs: [4]string{"path"},
		doc:   "Hides a path: a directory under an empty read-only tmpfs, a file under /dev/null taken from the host and checked to be device 1:3 (CVE-2025-31133). A path that is not there is skipped. One below /proc or /sys is looked up in the file system that was mounted there, whatever the image or a volume shows at that name by then.",
		needs: "CAP_SYS_ADMIN over the mount namespace", makes: "a mount", undone: withMntns, repeat: "no"},
	Readonly: {name: "readonly", c: "READONLY", sides: [2]Side{Init},
		slots: [2]string{"root"}, strs: [4]string{"path"},
		doc:   "Makes a path read-only by a recursive clone of itself. A path that is not there is skipped; one below /proc or /sys is looked up as in mask.",
		needs: "CAP_SYS_ADMIN over the mount namespace", makes: "a mount", undone: withMntns, repeat: "no"},
	Pivot: {name: "pivot", c: "PIVOT", sides: [2]Side{Init},
		slots: [2]string{"root"}, nums: [6]num{{"no_pivot", boolean}},
		doc:   "pivot_root(2) into the root and lazy umount of the old one: nothing of the host's tree remains reachable. With no_pivot the root is moved over / and entered by chroot (initramfs). A standard stream that is the host's /dev/null becomes the container's.",
		needs: "a mount namespace of its own", makes: "nothing", undone: withProcess, repeat: "no"},
	Console: {name: "console", c: "CONSOLE", sides: [2]Side{Init},
		slots: [2]string{">master"}, strs: [4]string{}, nums: [6]num{{"width", dec}, {"height", dec}, {"uid", dec}, {"bind", boolean}},
		doc:   "Opens a terminal in the container's own devpts, checked by file system type (CVE-2025-52565), takes it as controlling terminal and standard streams, and keeps the master for the next barrier. With bind, /dev/console becomes that terminal. The terminal keeps the kernel's default modes: newlines come out as CR LF.",
		needs: "devpts; setsid", makes: "a terminal", undone: withProcess, repeat: "no"},
	Stdio: {name: "stdio", c: "STDIO", sides: [2]Side{Init},
		slots: [2]string{"from"}, nums: [6]num{{"fd", dec}},
		doc:   "dup2(2) of a slot onto a standard stream.",
		needs: "the slot", makes: "nothing", undone: withProcess, repeat: "yes"},
	Gate: {name: "gate", c: "GATE", sides: [2]Side{Init},
		slots: [2]string{"fifo"},
		doc:   "Between create and start: waits for one byte on the FIFO. The writer may be another process than the one that created the container.",
		needs: "the FIFO", makes: "nothing", undone: "–", repeat: "no"},
	Rlimit: {name: "rlimit", c: "RLIMIT", sides: [2]Side{Init},
		nums:  [6]num{{"resource", resourceName}, {"soft", dec}, {"hard", dec}},
		doc:   "setrlimit(2).",
		needs: "CAP_SYS_RESOURCE to raise the hard limit", makes: "nothing", undone: withProcess, repeat: "yes"},
	Personality: {name: "personality", c: "PERSONALITY", sides: [2]Side{Init}, nums: [6]num{{"domain", hexa}},
		doc: "personality(2).", needs: "nothing", makes: "nothing", undone: withProcess, repeat: "yes"},
	IOPriority: {name: "io_priority", c: "IO_PRIORITY", sides: [2]Side{Init}, nums: [6]num{{"value", hexa}},
		doc: "ioprio_set(2) of this process: class in the upper bits, priority in the lower 13.", needs: "CAP_SYS_NICE for the realtime class", makes: "nothing", undone: withProcess, repeat: "yes"},
	Scheduler: {name: "scheduler", c: "SCHEDULER", sides: [2]Side{Init},
		nums:  [6]num{{"policy", dec}, {"flags", hexa}, {"nice_priority", hexa}, {"runtime", dec}, {"deadline", dec}, {"period", dec}},
		doc:   "sched_setattr(2). nice_priority holds nice in the lower and priority in the upper 32 bits; times are nanoseconds.",
		needs: "CAP_SYS_NICE for realtime policies", makes: "nothing", undone: withProcess, repeat: "yes"},
	Keyring: {name: "keyring", c: "KEYRING", sides: [2]Side{Init}, strs: [4]string{"name"},
		doc: "Joins the container's session keyring by its name, so that the host's keys are not inherited (keyctl(2)); the first one makes it, and lets its owner search it for execs to find it. A kernel without keys, or a full quota, is not an error.", needs: "nothing", makes: "a keyring", undone: withProcess, repeat: "yes"},
	Chdir: {name: "chdir", c: "CHDIR", sides: [2]Side{Init}, strs: [4]string{"path"},
		doc: "Enters the working directory and verifies that it lies inside the root: getcwd(2) must answer an absolute path (CVE-2024-21626).", needs: "the directory", makes: "nothing", undone: withProcess, repeat: "yes"},
	Bounding: {name: "bounding", c: "BOUNDING", sides: [2]Side{Init}, nums: [6]num{{"caps", capSet}},
		doc: "Drops every other capability from the bounding set (capabilities(7)), while CAP_SETPCAP is still there, and keeps the permitted ones over the change of user.", needs: "CAP_SETPCAP", makes: "nothing", undone: withProcess, repeat: "yes"},
	User: {name: "user", c: "USER", sides: [2]Side{Init}, lists: [3]string{}, blob: "groups",
		nums:  [6]num{{"uid", dec}, {"gid", dec}, {"umask", octal}, {"ngroups", dec}, {"set_umask", boolean}},
		doc:   "setgroups(2), setresgid(2), setresuid(2), umask(2), in this order. groups is a list of 32-bit ids.",
		needs: "CAP_SETUID, CAP_SETGID", makes: "nothing", undone: withProcess, repeat: "yes"},
	MapRoot: {name: "map_root", c: "MAP_ROOT", sides: [2]Side{Init},
		doc:   "Becomes uid and gid 0 of the user namespace just joined, without supplementary groups: until then the process has no identity there.",
		needs: "a user namespace with 0 mapped", makes: "nothing", undone: withProcess, repeat: "yes"},
	Caps: {name: "caps", c: "CAPS", sides: [2]Side{Init},
		nums:  [6]num{{"effective", capSet}, {"permitted", capSet}, {"inheritable", capSet}, {"ambient", capSet}},
		doc:   "capset(2) and the ambient set. The inheritable set is empty unless the ambient one needs it (CVE-2022-24769, CVE-2022-29162).",
		needs: "nothing that was not kept", makes: "nothing", undone: withProcess, repeat: "yes"},
	NoNewPrivs: {name: "no_new_privs", c: "NO_NEW_PRIVS", sides: [2]Side{Init},
		doc: "prctl(PR_SET_NO_NEW_PRIVS): exec gives no privileges (setuid, file capabilities).", needs: "nothing", makes: "nothing", undone: withProcess, repeat: "yes"},
	Seccomp: {name: "seccomp", c: "SECCOMP", sides: [2]Side{Init}, slots: [2]string{">notify"}, strs: [4]string{"profile"}, blob: "filter", nums: [6]num{{"flags", seccompFlags}},
		doc: "Loads the filter (seccomp(2)) that the parent compiled: an array of struct sock_filter. Late, so that it need not allow what init itself still does, but before exec.", needs: "no_new_privs or CAP_SYS_ADMIN", makes: "nothing", undone: withProcess, repeat: "no"},
	SendFD: {name: "send_fd", c: "SEND_FD", sides: [2]Side{Parent}, slots: [2]string{"fd"}, strs: [4]string{"socket", "payload"}, blob: "state",
		doc: "Sends a descriptor that crossed a barrier, the terminal's master or the seccomp notify descriptor, to a listening socket, with the payload or, for a seccomp agent, with the container process state (runtime-spec, config-linux.md), into which pids and status are filled.", needs: "a listener", makes: "nothing", undone: "–", repeat: "no"},
	Exec: {name: "exec", c: "EXEC", sides: [2]Side{Init}, lists: [3]string{"candidates", "args", "env"}, nums: [6]num{{"preserve_fds", dec}},
		doc: "Resets signals, marks every descriptor from 3+preserve_fds on close-on-exec (CVE-2024-21626), and execs the first candidate that exists; EACCES of one is remembered over ENOENT of the rest. The preserved descriptors come in the last preserve_fds slots and are put down to 3 and following just before. End of file on the sync socket with the progress page here means that the program runs.", needs: "the program", makes: "nothing", undone: withProcess, repeat: "no"},
	FindProgram: {name: "find_program", c: "FIND_PROGRAM", sides: [2]Side{Init}, strs: [4]string{"name"}, lists: [3]string{"candidates"},
		doc: "Looks whether one of the candidates of the later exec is a file that can be executed, so that create, and not start, says that there is none.", needs: "the root", makes: "nothing", undone: "–", repeat: "yes"},
	Loopback: {name: "loopback", c: "LOOPBACK", sides: [2]Side{Init},
		doc: "Brings the loopback device of a new network namespace up; the kernel gives it 127.0.0.1 and ::1 then.", needs: "CAP_NET_ADMIN over the network namespace", makes: "nothing", undone: "with the namespace", repeat: "yes"},
	Pause: {name: "pause", c: "PAUSE", sides: [2]Side{Init},
		doc: "Stays as PID 1 of a shared PID namespace and reaps, until it is killed. Closes every descriptor but the standard streams first, the sync socket with them; SIGTERM and SIGINT end it.", needs: "a PID namespace", makes: "nothing", undone: withProcess, repeat: "no"},
	Exit: {name: "exit", c: "EXIT", sides: [2]Side{Init},
		doc: "Ends the process with status 0: it lived only to make namespaces that the parent has pinned.", needs: "nothing", makes: "nothing", undone: "–", repeat: "–"},
	CPUAffinity: {name: "cpu_affinity", c: "CPU_AFFINITY", sides: [2]Side{Init}, strs: [4]string{"cpus"}, blob: "mask",
		doc: "sched_setaffinity(2) of this process. mask is a list of 64-bit words. An exec has two: one before it joins the container's cgroups, whose cpuset replaces it, and one after.", needs: "one of the processors in the cpuset", makes: "nothing", undone: withProcess, repeat: "yes"},
	MemoryPolicy: {name: "memory_policy", c: "MEMORY_POLICY", sides: [2]Side{Init}, strs: [4]string{"nodes"}, nums: [6]num{{"mode", memPolicy}}, blob: "mask",
		doc: "set_mempolicy(2), after the cgroups are joined: nodes must be among the cpuset's. mode holds the flags too; mask is a list of 64-bit words. Children and exec inherit it.", needs: "a kernel with NUMA", makes: "nothing", undone: withProcess, repeat: "yes"},
	NetDevice: {name: "net_device", c: "NET_DEVICE", sides: [2]Side{Parent}, strs: [4]string{"device", "name"},
		doc:   "Moves a network device of the runtime's network namespace into the process's (rtnetlink(7)), under another name in the same message, so that nobody sees it half moved. Its permanent addresses of global scope are set again, for the kernel drops all, and it is set up.",
		needs: "CAP_NET_ADMIN over both network namespaces", makes: "nothing of ours", undone: "by the kernel: with its namespace a virtual device ends, and a physical one goes back", repeat: "no"},
	CopyUp: {name: "copy_up", c: "COPY_UP", sides: [2]Side{Parent},
		slots: [2]string{">out", "root"}, strs: [4]string{"path"}, lists: [3]string{"options"}, nums: [6]num{{"attrs", mountAttrs}},
		doc:   "Makes a detached tmpfs with a copy of the directory at path below root (the mount option tmpcopyup). Files are found below descriptors without following a link or entering another mount: an image's links lead nowhere. Ids in options are the container's and translated, for the file system is the runtime's, not the user namespace's.",
		needs: "the root's descriptor", makes: "a detached mount", undone: "with the descriptor", repeat: "yes"},
	Resctrl: {name: "resctrl", c: "RESCTRL", sides: [2]Side{Parent},
		strs: [4]string{"group", "monitor"}, lists: [3]string{"schemata"}, nums: [6]num{{"make", makeName}},
		doc:   "Makes or checks a group of the resctrl file system (Documentation/filesystems/resctrl.rst), sets its schemata and makes the container's monitoring group in it. One that is there already must have these schemata.",
		needs: "a mounted resctrl", makes: "object resctrl, for what is the container's own", undone: "by rmdir", repeat: "yes: an existing group is checked"},
}

func init() {
	for k := range table {
		if table[k].name != "" {
			table[k].kind = Kind(k)
		}
	}
}
