package plan

import (
	"fmt"
	"strconv"
	"strings"
)

type flagName struct {
	bit  uint64
	name string
}

// Namespace flags of clone(2), unshare(2) and setns(2).
const (
	NewTime   = 0x00000080
	NewNS     = 0x00020000
	NewCgroup = 0x02000000
	NewUTS    = 0x04000000
	NewIPC    = 0x08000000
	NewUser   = 0x10000000
	NewPID    = 0x20000000
	NewNet    = 0x40000000
)

var cloneNames = []flagName{
	{NewUser, "user"}, {NewPID, "pid"}, {NewNS, "mount"}, {NewNet, "net"}, {NewIPC, "ipc"}, {NewUTS, "uts"}, {NewCgroup, "cgroup"}, {NewTime, "time"},
}

// Mount attributes of mount_setattr(2).
const (
	AttrRdonly      = 0x01
	AttrNosuid      = 0x02
	AttrNodev       = 0x04
	AttrNoexec      = 0x08
	AttrAtimeMask   = 0x70
	AttrNoatime     = 0x10
	AttrStrictatime = 0x20
	AttrNodiratime  = 0x80
	AttrNosymfollow = 0x200000
)

var attrNames = []flagName{
	{AttrRdonly, "ro"}, {AttrNosuid, "nosuid"}, {AttrNodev, "nodev"}, {AttrNoexec, "noexec"}, {AttrAtimeMask, "atime"}, {AttrNoatime, "noatime"},
	{AttrStrictatime, "strictatime"}, {AttrNodiratime, "nodiratime"}, {AttrNosymfollow, "nosymfollow"},
}

// Propagation flags of mount(2).
const (
	PropRec        = 0x4000
	PropUnbindable = 1 << 17
	PropPrivate    = 1 << 18
	PropSlave      = 1 << 19
	PropShared     = 1 << 20
)

var propNames = []flagName{
	{PropRec, "rec"}, {PropUnbindable, "unbindable"}, {PropPrivate, "private"}, {PropSlave, "slave"}, {PropShared, "shared"},
}

var bindNames = []flagName{{BindRecursive, "rec"}, {BindRecursiveAttr, "rec-attr"}, {BindOptional, "optional"}, {BindMapRecursive, "rec-map"}}

// Open flags, as Linux has them on amd64 and arm64.
const (
	OpenRead      = 0x0
	OpenWrite     = 0x1
	OpenReadWrite = 0x2
	OpenNonblock  = 0x800
	OpenPath      = 0x200000
)

var openNames = []flagName{{OpenWrite, "write"}, {OpenReadWrite, "read-write"}, {OpenNonblock, "nonblock"}, {OpenPath, "path"}}

// What a mount makes when its target is missing.
const (
	CreateNone uint64 = 0
	CreateDir  uint64 = 1
	CreateFile uint64 = 2
	CreateLike uint64 = 3 // what the source is
)

var seccompNames = []flagName{{1, "tsync"}, {2, "log"}, {4, "spec_allow"}, {8, "new_listener"}, {16, "tsync_esrch"}, {32, "wait_killable"}}

var memPolicyNames = []string{"default", "preferred", "bind", "interleave", "local", "preferred-many", "weighted-interleave"}

// Flags of a memory policy, beside the mode in one number (set_mempolicy(2)).
const (
	MemNumaBalancing = 1 << 13
	MemRelativeNodes = 1 << 14
	MemStaticNodes   = 1 << 15
	memFlags         = MemNumaBalancing | MemRelativeNodes | MemStaticNodes
)

var memFlagNames = []flagName{{MemNumaBalancing, "numa-balancing"}, {MemRelativeNodes, "relative"}, {MemStaticNodes, "static"}}

var resources = []string{"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"}

// capNames are the capabilities in the order of their numbers (capabilities(7)).
var capNames = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace
sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control
setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore`)

// CapNumber gives the number of a capability by its name, with or without CAP_, in any case.
func CapNumber(name string) (uint, bool) {
	short := strings.TrimPrefix(strings.ToLower(name), "cap_")
	for i, n := range capNames {
		if n == short {
			return uint(i), true
		}
	}
	return 0, false
}

// CapNames gives all capabilities as config.json writes them, in the order of their numbers.
func CapNames() []string {
	var list []string
	for _, n := range capNames {
		list = append(list, "CAP_"+strings.ToUpper(n))
	}
	return list
}

// RlimitNumber gives the number of a resource by its RLIMIT_ name.
func RlimitNumber(name string) (uint64, bool) {
	short := strings.ToLower(strings.TrimPrefix(name, "RLIMIT_"))
	for i, n := range resources {
		if n == short {
			return uint64(i), true
		}
	}
	return 0, false
}

func formatFlags(names []flagName, v uint64) string {
	var out []string
	for _, f := range names {
		if f.bit != 0 && v&f.bit == f.bit {
			out = append(out, f.name)
			v &^= f.bit
		}
	}
	if v != 0 {
		out = append(out, fmt.Sprintf("%#x", v))
	}
	return strings.Join(out, ",")
}

// formatTreeAttrs prints what is set, in the upper half, and with a minus what is cleared.
func formatTreeAttrs(v uint64) string {
	out := formatFlags(attrNames, v>>32)
	for _, f := range attrNames {
		if v&f.bit != 0 && (f.bit&AttrAtimeMask == 0 || f.bit == AttrAtimeMask) {
			out += ",-" + f.name
		}
	}
	return strings.TrimPrefix(out, ",")
}

func formatCaps(v uint64) string {
	all := uint64(1)<<len(capNames) - 1
	switch {
	case v == 0:
		return "none"
	case v&all == all:
		return "all"
	}
	var out []string
	for i, n := range capNames {
		if v&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	if len(out) > len(capNames)/2 {
		var missing []string
		for i, n := range capNames {
			if v&(1<<i) == 0 {
				missing = append(missing, n)
			}
		}
		return "all-but:" + strings.Join(missing, ",")
	}
	return strings.Join(out, ",")
}

func pick(names []string, v uint64) string {
	if v < uint64(len(names)) {
		return names[v]
	}
	return strconv.FormatUint(v, 10)
}

// formatNum prints a number; "" leaves it out.
func formatNum(op *Op, f format, v uint64) string {
	switch f {
	case cloneFlags:
		return formatFlags(cloneNames, v)
	case mountAttrs:
		return formatFlags(attrNames, v)
	case treeAttrs:
		return formatTreeAttrs(v)
	case propFlags:
		return formatFlags(propNames, v)
	case bindFlags:
		return formatFlags(bindNames, v)
	case openFlags:
		return formatFlags(openNames, v)
	case seccompFlags:
		return formatFlags(seccompNames, v)
	case capSet:
		return formatCaps(v)
	case device:
		return fmt.Sprintf("%d:%d", v>>32, v&0xffffffff)
	case whereName:
		return pick([]string{"", "private", "container"}, v)
	case wayName:
		return pick([]string{"layer-fds", "lowerdir+", "mount"}, v)
	case waitName:
		return pick([]string{"", "init", "parent"}, v)
	case createName:
		return pick([]string{"", "dir", "file", "like-source"}, v)
	case resourceName:
		return pick(resources, v)
	case memPolicy:
		return strings.TrimSuffix(pick(memPolicyNames, v&^memFlags)+","+formatFlags(memFlagNames, v&memFlags), ",")
	case makeName:
		return pick([]string{"own", "shared", "given"}, v)
	}
	return formatPlain(op, f, v)
}

func formatPlain(op *Op, f format, v uint64) string {
	switch f {
	case boolean:
		if v == 0 {
			return ""
		}
		return "yes"
	case sdec:
		if op.Kind == Barrier && op.Num[2] == 0 {
			return ""
		}
		return strconv.FormatInt(int64(v), 10)
	case octal:
		return fmt.Sprintf("%04o", v)
	case hexa:
		return fmt.Sprintf("%#x", v)
	}
	if v == 0 && (op.Kind == Barrier || op.Kind == Hook || op.Kind == Console || op.Kind == Exec) {
		return ""
	}
	if v == ^uint64(0) {
		return "unlimited"
	}
	return strconv.FormatUint(v, 10)
}
