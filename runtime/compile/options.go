package compile

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/host"
)

// Options are what a start needs besides the specification.
type Options struct {
	// ID is the container's, pod's or exec's id.
	ID string
	// Container is the id of the container that an exec runs in.
	Container string
	Facts     host.Facts
	// RunDir holds the pins of pods; only Pod needs it.
	RunDir string
	// PrivateDir: namespaces and bind sources below it exist in the private mount namespace only, and are
	// opened there ("/run/cri-mini/pods"). Empty: nothing is private.
	PrivateDir string
	// Rootfs is an overlay to make. The zero value takes spec.Root.Path, which may be relative to Bundle.
	Rootfs Rootfs
	// Stage is an existing, empty host directory where an overlay root is attached inside the container's
	// mount namespace. Empty: at root.path.
	Stage string
	// Bundle is the directory of config.json. Hooks see it in the state; relative sources start there.
	Bundle string
	// Seccomp compiles a profile. The description is for people who read the plan.
	Seccomp func(*specs.LinuxSeccomp) (bpf []byte, flags uint64, description string, err error)
	Stdio   Stdio
	// Gate is the path of the FIFO between create and start; empty: the program runs at once.
	Gate         string
	NoPivot      bool
	NoNewKeyring bool
	// PreserveFDs is how many of the caller's descriptors from 3 on the program gets. The plan opens them
	// by the names fd3, fd4, …
	PreserveFDs uint
	// Command is for mini-runc: the standard streams are inherited, and the memory cgroup is joined before
	// the gate, because whoever calls create expects the process to be in all its cgroups.
	Command bool
	// ConsoleSocket is a listening UNIX socket that gets the terminal's master.
	ConsoleSocket string
	// CloneInto: the engine clones straight into the v2 cgroup (clone3(2), CLONE_INTO_CGROUP). A write to
	// its cgroup.procs takes a lock over all processes: 9 ms on the development machine against none.
	CloneInto bool
	// KillGroup: an exec joins a group "exec-<ID>" of its own below the container's in one hierarchy, so
	// that whatever it forks can be found and killed. The engine makes the group.
	KillGroup bool
	// NoCgroup: the process stays in the caller's cgroups, who may make none, and no limit can be set. Where there
	// is no cgroup hierarchy at all it is so, too.
	NoCgroup bool
	// SubCgroups are existing groups below the container's that an exec joins instead, by controller; "" is
	// for the controllers that are not in it.
	SubCgroups map[string]string
	// Warn hears of what the specification asks for and the runtime may leave out, such as a capability
	// that nobody can give. May be nil.
	Warn func(string)
}

// Rootfs are the directories of an overlay.
type Rootfs struct {
	Lower       []string // top first
	Upper, Work string   // empty: a read-only root
}

func (r Rootfs) empty() bool { return len(r.Lower) == 0 && r.Upper == "" && r.Work == "" }

// Stdio says where the standard streams come from.
type Stdio struct {
	// Dir holds the FIFOs stdin, stdout and stderr. Empty: a Command inherits its caller's, an exec opens
	// the descriptors named stdin, stdout and stderr.
	Dir string
	// Stdin makes a FIFO for it; without, it is /dev/null.
	Stdin bool
	// StdinOnce: the program sees the end of file when the first writer has closed. Else the FIFO is held
	// open for writing too, and it never does.
	StdinOnce bool
}
