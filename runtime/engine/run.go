package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Journal is what the engine needs of runtime/journal. A nil Journal records nothing: execs have none.
type Journal interface {
	Intend(plan.Object) error
	Note(kind, id string, v any) error
}

// ProcessNote is the journal's note of kind "process": which process a container's init is.
type ProcessNote struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks after boot, field 22 of /proc/PID/stat
}

// NoteProcess is the kind of the journal notes that hold a ProcessNote.
const NoteProcess = "process"

// spawner clones the init process: through a monitor, or directly.
type spawner interface {
	spawn(ctx context.Context, req spawnRequest) (spawned, error)
}

type spawnRequest struct {
	flags uint64
	slots []int32
	fds   []int
}

type spawned struct {
	pid       int
	startTime uint64
	pidfd     *os.File
	at        time.Time
}

// insideOf is the container that an exec runs in.
type insideOf struct {
	PID    int
	Status specs.ContainerState
	Bundle string // where it is known here
}

// slowOp is how long an op of the parent takes before the debug log names it.
const slowOp = 500 * time.Microsecond

// run is one interpretation of a plan's parent side. It owns every descriptor in fds.
type run struct {
	id, owner string // owner of the objects in the journal: the container, or "" for the pod
	plan      *plan.Plan
	journal   Journal
	cgroups   *cgroup.Tree
	private   *private // nil for mini-runc
	spawner   spawner
	given     map[string]int // descriptors that the plan opens by a name without a slash: pidfd, stdout …
	onConsole func(master int) error
	onClone   func(spawned) error
	inside    insideOf     // of an exec: the container
	log       *slog.Logger // nil: says nothing
	direct    bool         // nothing else goes on in this process: waits need not leave their thread

	fds     []int
	page    *linux.SharedPage
	sync    *os.File // our end; nil before the clone and after the end of file
	threads []*nsThread
	child   spawned
	next    int // op to carry out next
}

func (r *run) init() {
	r.fds = make([]int, len(r.plan.Slots))
	for i := range r.fds {
		r.fds[i] = -1
	}
}

// walk carries out the parent's ops up to but not including the op at end. An error is an *OpError.
func (r *run) walk(ctx context.Context, end int) error {
	for ; r.next < end; r.next++ {
		op, began := &r.plan.Ops[r.next], time.Now()
		err := r.step(ctx, op)
		if took := time.Since(began); r.log != nil && took > slowOp {
			r.log.Debug("slow op", "ctr", r.id, "op", r.plan.Summary(r.next), "took", took)
		}
		if err != nil {
			var opErr *OpError
			if errors.As(err, &opErr) {
				return err
			}
			return &OpError{Index: r.next, Kind: op.Kind, Summary: r.plan.Summary(r.next), Err: err}
		}
	}
	return nil
}

func (r *run) step(ctx context.Context, op *plan.Op) error {
	switch {
	case op.Kind == plan.Barrier:
		return r.barrier(ctx, op)
	case op.Kind == plan.Exec || op.Kind == plan.Pause || op.Kind == plan.Exit:
		return r.awaitEnd(ctx)
	case op.Side == plan.Init:
		return nil
	}
	return r.parent(ctx, op)
}

// failure words the death of init: what the progress page says.
func (r *run) failure() error {
	if r.page == nil {
		return ErrGone
	}
	at, errno := int(r.page.Load32(plan.ProgressAtOp)), syscall.Errno(r.page.Load32(plan.ProgressAtErrno))
	if r.page.Load32(plan.ProgressAtMagic) != plan.ProgressMagic {
		clone := r.plan.Index(plan.Clone)
		return r.explainOOM(&OpError{Index: clone, Kind: plan.Clone, Summary: "clone", Killed: true})
	}
	if r.page.Load32(plan.ProgressAtBad) != 0 {
		return fmt.Errorf("init refused the plan at its op %d", at)
	}
	e := &OpError{Index: at, Summary: r.plan.Summary(at), Killed: errno == 0}
	var op plan.Op
	if at < len(r.plan.Ops) {
		op = r.plan.Ops[at]
		e.Kind = op.Kind
	}
	if errno != 0 {
		e.Err = errno
		e.explainHook(r.page.Load32(plan.ProgressAtStatus))
	}
	if op.Kind == plan.OpenTree && op.Slot[1] != plan.NoSlot && errno == syscall.EINVAL {
		e.Err = unmapped(errno)
	}
	return r.explainOOM(e)
}

// explainOOM finds out whether it was the kernel that killed init, for the memory limit of the group that the plan made.
func (r *run) explainOOM(e *OpError) *OpError {
	i := groupOp(r.plan)
	if !e.Killed || i < 0 || r.cgroups == nil || r.cgroups.OOMKills(r.plan.Ops[i].Str[0]) == 0 {
		return e
	}
	e.OOM = true
	var limits specs.LinuxResources
	if json.Unmarshal(r.plan.Ops[i].Blob, &limits) == nil && limits.Memory != nil && limits.Memory.Limit != nil {
		e.Limit = *limits.Memory.Limit
	}
	return e
}

// awaitEnd waits for the end of file on the sync socket and tells whether the program runs.
func (r *run) awaitEnd(ctx context.Context) error {
	if r.sync == nil {
		return nil
	}
	_, _, err := r.receive(ctx)
	if err != nil && ctx.Err() != nil && r.atEnd() {
		// Given up at the very end: the program may run already, and only the end of file tells.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), execLimit)
		defer cancel()
		_ = r.sync.SetReadDeadline(time.Time{})
		_, _, err = r.receive(late)
	}
	if err == nil {
		return errors.New("init sent a message where it should have ended")
	}
	if !errors.Is(err, errEOF) {
		return err
	}
	_ = r.sync.Close()
	r.sync = nil
	if r.atEnd() {
		return nil
	}
	return r.failure()
}

// execLimit is how long a caller who has given up still waits for an execve(2) that is under way.
const execLimit = time.Second

// atEnd tells that init is at the op that is next, the last of its side, and has met no error there.
func (r *run) atEnd() bool {
	return int(r.page.Load32(plan.ProgressAtOp)) == r.next && r.page.Load32(plan.ProgressAtErrno) == 0
}

// pid is the process that stays: the one that a Fork left, or the cloned one.
func (r *run) pid() int {
	if r.page != nil {
		if pid := r.page.Load32(plan.ProgressAtPID); pid != 0 {
			return int(pid)
		}
	}
	return r.child.pid
}

// kill ends what was cloned.
func (r *run) kill() {
	for _, pid := range []int{r.child.pid, r.pid()} {
		if pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// close gives back every descriptor but the pidfd, which belongs to whoever asked for the clone.
func (r *run) close() {
	for i, fd := range r.fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		r.fds[i] = -1
	}
	if r.sync != nil {
		_ = r.sync.Close()
		r.sync = nil
	}
	if r.page != nil {
		_ = r.page.Close()
		r.page = nil
	}
	for _, t := range r.threads {
		t.close()
	}
	r.threads = nil
}

func (r *run) intend(kind plan.ObjectKind, name string, in uint64) error {
	if r.journal == nil {
		return nil
	}
	o := plan.Object{Kind: kind, Name: name, Owner: r.owner}
	if in == plan.InPrivate {
		o.Data = []byte(`{"private":true}`)
	}
	return r.journal.Intend(o)
}
