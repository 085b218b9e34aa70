// Package wire owns the messages between the daemon and a monitor, and their encoding.
//
// A monitor listens on a SOCK_SEQPACKET socket, so that a message is one packet with the descriptors that
// belong to it (unix(7), SCM_RIGHTS). The daemon may be replaced by a newer one while a monitor lives: each
// message begins with the version of the sender, and a reader ignores fields behind those that it knows.
// Anything of runtime/ may import wire; wire imports only runtime/plan.
//
// Invariant: Decode never panics and never allocates more than the packet holds.
package wire

import "fmt"

// Version of the protocol. A field may be added at the end of a message without a new version.
const Version = 1

// MaxMessage is the largest packet in bytes; MaxFDs is how many descriptors may go with one (SCM_MAX_FD is 253).
const (
	MaxMessage = 64 << 10
	MaxFDs     = 250
)

// Type is the type of a message.
type Type uint16

// The messages. Those of the daemon have a Seq that the reply repeats; events of the monitor have Seq 0.
const (
	_              Type = iota
	TypeHello           // daemon: who are you, what do you have
	TypeWelcome         // monitor: reply to Hello, followed by one TypeItem for each process
	TypeItem            // monitor: one process that it watches or whose exit it keeps (a terminal's master goes with it); without a kind a pod
	TypeSpawn           // daemon: clone an init; the slots' descriptors go with it
	TypeSpawned         // monitor: reply; the pidfd goes with it
	TypeAdopt           // daemon: take over a running container of a dead monitor; pidfd and master go with it
	TypeTTY             // daemon: the terminal's master of a container
	TypeReopen          // daemon: open the log file again
	TypeExit            // monitor: a process ended
	TypeAck             // daemon: the exit was recorded, forget it
	TypeForget          // daemon: the pod is gone; without a pod: leave when nothing is left
	TypeDone            // monitor: reply to all that have no other
	TypeAttach          // daemon: copy a container's output into the socket that goes with it, see Attached
	TypeCloseStdin      // daemon: let go of the FIFO stdin, for the container to see the end of file
	TypePing            // daemon: are you alive; any reply will do
)

// Attached is the first byte of each packet in an attachment's socket (SOCK_SEQPACKET): what the packet is.
type Attached byte

// What a packet is. Output follows its byte, at most MaxAttached bytes. After the last two nothing comes; a socket that
// ends without either had its monitor die.
const (
	AttachedStdout Attached = iota + 1
	AttachedStderr
	AttachedEnd  // the container has ended, this was all of its output
	AttachedLost // the daemon did not read in time, output was left out here
)

// MaxAttached bounds the output in one packet, in bytes.
const MaxAttached = 16 << 10

// Kind tells what a process is to the monitor.
type Kind uint8

// The kinds.
const (
	Container Kind = iota + 1
	Exec
	Setup // makes a pod's namespaces, or is its pause process
)

// Message is every message: one flat struct, of which each type uses what it needs. A struct per type would
// say the same things twelve times.
type Message struct {
	Type Type
	Seq  uint64

	ID, Pod    string
	Kind       Kind
	PID        int
	StartTime  uint64  // field 22 of /proc/PID/stat, clock ticks after boot
	CloneFlags uint64  // Spawn
	Slots      []int32 // Spawn: the slot of each descriptor that goes with the message
	Dir        string  // Spawn, Adopt: where the FIFOs stdout and stderr and the log state are; "" for none
	Log        string  // Spawn, Adopt: log file; "" for none
	Terminal   bool
	Timeout    int64  // Spawn: nanoseconds until it is killed with all it made; 0 for none
	KillFile   string // Spawn: directory of the cgroup that holds all it made

	Exited   bool
	Status   uint32 // Exit, Item: wait status as wait4(2) has it
	At       int64  // Exit, Item: nanoseconds since the epoch; Spawned: when it was cloned
	TimedOut bool
	Unknown  bool   // Exit, Item: the process is gone and the kernel would not tell the status
	Dropped  uint64 // Item, Exit: bytes of log that could not be written

	Errno uint32 // replies: 0 or the errno
	Error string // replies: what was attempted
}

// Err gives the error of a reply.
func (m *Message) Err() error {
	if m.Errno == 0 && m.Error == "" {
		return nil
	}
	return &RemoteError{Errno: m.Errno, What: m.Error}
}

// RemoteError is an error that the other side met.
type RemoteError struct {
	Errno uint32
	What  string
}

func (e *RemoteError) Error() string {
	if e.Errno == 0 {
		return e.What
	}
	return fmt.Sprintf("%s: errno %d", e.What, e.Errno)
}
