package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/journal"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// noteContainer is the kind of the journal note that holds a containerNote.
const noteContainer = "container"

// containerNote is what later commands must know of a container that was made.
type containerNote struct {
	Version     string            `json:"ociVersion"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroup      string            `json:"cgroup"`
	Limited     bool              `json:"limited"`             // its memory is
	OwnPIDs     bool              `json:"ownPIDs"`             // it has a PID namespace of its own
	Gate        int               `json:"gate"`                // op from which on init waits for start; -1 for none
	Exec        int               `json:"exec"`                // op that becomes the program
	NoProgram   bool              `json:"noProgram,omitempty"` // config.json has no process
	Ops         []noteOp          `json:"ops,omitempty"`
	Poststart   []specs.Hook      `json:"poststart,omitempty"`
	Poststop    []specs.Hook      `json:"poststop,omitempty"`
}

// noteOp is an op that start may have to name; the plan itself is not kept.
type noteOp struct {
	Index   int       `json:"index"`
	Kind    plan.Kind `json:"kind"`
	Summary string    `json:"summary"`
}

// notes are both notes of a container, zero where they were not written yet.
type notes struct {
	containerNote
	proc ProcessNote
}

// CommandState is what state and list print: the state of runtime-spec (runtime.md) and what runc adds to it.
type CommandState struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"` // 0 once it has stopped
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func readNotes(j *journal.Journal, id string) (notes, error) {
	n := notes{containerNote: containerNote{Gate: -1, Exec: -1}}
	if _, err := j.ReadNote(noteContainer, id, &n.containerNote); err != nil {
		return n, err
	}
	_, err := j.ReadNote(NoteProcess, id, &n.proc)
	return n, err
}

func (ct *commandContainer) notes() (notes, error) {
	if ct.j == nil {
		return notes{containerNote: containerNote{Gate: -1, Exec: -1}}, nil
	}
	return readNotes(ct.j, ct.id)
}

// status tells where in its life the container is.
func (ct *commandContainer) status(n notes) string { return statusOf(n, ct.page, false) }

// statusOf needs no lock. making says that somebody is at work on a container without a process.
func statusOf(n notes, page *os.File, making bool) string {
	if n.proc.PID == 0 {
		if making {
			return string(specs.StateCreating)
		}
		return string(specs.StateStopped)
	}
	if s, ok := readStat(n.proc.PID); !ok || s.start != n.proc.StartTime || s.ended() {
		return string(specs.StateStopped)
	}
	op, _ := readProgress(page)
	switch {
	case op >= n.Exec:
		return string(specs.StateRunning)
	case n.Gate >= 0 && op >= n.Gate:
		return string(specs.StateCreated)
	}
	return string(specs.StateCreating)
}

// readProgress reads what init wrote last: the op it is at and the errno that ended it. Op is -1 before the first.
func readProgress(page *os.File) (op int, errno unix.Errno) {
	var b [plan.ProgressAtErrno + 4]byte
	if page == nil {
		return -1, 0
	}
	if _, err := page.ReadAt(b[:], 0); err != nil || binary.NativeEndian.Uint32(b[plan.ProgressAtMagic:]) != plan.ProgressMagic {
		return -1, 0
	}
	return int(binary.NativeEndian.Uint32(b[plan.ProgressAtOp:])), unix.Errno(binary.NativeEndian.Uint32(b[plan.ProgressAtErrno:]))
}

// procStat is what the engine reads of /proc/PID/stat (proc_pid_stat(5)).
type procStat struct {
	comm  string
	state byte
	start uint64 // clock ticks after boot
}

func (s procStat) ended() bool { return s.state == 'Z' || s.state == 'X' }

func readStat(pid int) (procStat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, false
	}
	text := string(b) // the name is in parentheses and may hold anything
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procStat{}, false
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 20 {
		return procStat{}, false
	}
	start, _ := strconv.ParseUint(f[19], 10, 64)
	return procStat{comm: text[open+1 : end], state: f[0][0], start: start}, true
}

// reading is what can be known of a container without its lock.
type reading struct {
	notes
	status string
	owner  uint32
}

// read looks at a container; whoever is at work on it goes on.
func (c *Command) read(id string) (reading, error) {
	if err := CheckID(id); err != nil {
		return reading{}, err
	}
	r, err := c.readDir(id, c.dir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("container %s: %w", id, ErrNoContainer)
	}
	if err != nil {
		return r, fmt.Errorf("container %s: %w", id, err)
	}
	return r, nil
}

func (c *Command) readDir(id, dir string) (reading, error) {
	r := reading{notes: notes{containerNote: containerNote{Gate: -1, Exec: -1}}}
	lock, err := os.Open(dir)
	if err != nil {
		return r, err
	}
	defer lock.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(lock.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return r, fs.ErrNotExist
	}
	r.owner = st.Uid
	page, err := os.OpenFile(filepath.Join(dir, "progress"), os.O_RDWR, 0)
	if err == nil {
		defer page.Close()
		r.notes, err = readLocked(page, filepath.Join(dir, "journal"), id)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	making := r.proc.PID == 0 && unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
	r.status = statusOf(r.notes, page, making)
	return r, nil
}

func readLocked(page *os.File, path, id string) (notes, error) {
	if err := unix.Flock(int(page.Fd()), unix.LOCK_SH); err != nil {
		return notes{}, fmt.Errorf("lock journal: %w", err)
	}
	j, err := journal.Open(path)
	if err != nil {
		return notes{containerNote: containerNote{Gate: -1, Exec: -1}}, err
	}
	defer func() { _ = j.Close() }()
	return readNotes(j, id)
}

// State tells about a container.
func (c *Command) State(id string) (CommandState, error) {
	r, err := c.read(id)
	if err == nil {
		err = c.readPaused(id, &r)
	}
	if err != nil {
		return CommandState{}, err
	}
	return r.state(id), nil
}

// readPaused looks at the cgroup too, which only those who print the status need.
func (c *Command) readPaused(id string, r *reading) error {
	paused, err := c.frozen(*r)
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	if paused {
		r.status = StatusPaused
	}
	return nil
}

func (r *reading) state(id string) CommandState {
	s := CommandState{
		Version: r.Version, ID: id, PID: r.proc.PID, Status: r.status, Bundle: r.Bundle, Rootfs: r.Rootfs, Created: r.Created,
		Annotations: r.Annotations,
	}
	if s.Version == "" {
		s.Version = specs.Version
	}
	if s.Status == string(specs.StateStopped) {
		s.PID = 0
	}
	return s
}

// Listed is a container in a list, with the uid of whoever made it.
type Listed struct {
	CommandState
	UID uint32
}

// List tells about all containers, in the order of their ids. One that cannot be read is passed over with a
// warning.
func (c *Command) List() ([]Listed, error) {
	entries, err := os.ReadDir(c.cfg.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var list []Listed
	for _, e := range entries {
		if !e.IsDir() || CheckID(e.Name()) != nil {
			continue
		}
		r, err := c.read(e.Name())
		if err == nil {
			err = c.readPaused(e.Name(), &r)
		}
		if errors.Is(err, ErrNoContainer) {
			continue // deleted meanwhile
		}
		if err != nil {
			c.warn("%v", err)
			continue
		}
		list = append(list, Listed{CommandState: r.state(e.Name()), UID: r.owner})
	}
	return list, nil
}
