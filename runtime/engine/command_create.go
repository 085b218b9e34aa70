package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// CommandRequest describes a container to be made.
type CommandRequest struct {
	ID     string
	Bundle string // absolute
	Spec   *specs.Spec
	Config []byte // the text of Spec
	// Plan is compiled from Spec. Create needs a gate in it, at Gate(ID); Run goes without.
	Plan *plan.Plan
	// Console gets the terminal's master, which is the receiver's own. May be nil.
	Console func(master *os.File) error
	// Prepare is called with the container's directory before anything else is made. May be nil.
	Prepare func(dir string) error
	// PreserveFDs is how many of our descriptors from 3 on the plan opens.
	PreserveFDs int
	// NoProgram says that the process of Spec stands for one that config.json does not have: Create makes the
	// container, and Start refuses it (runtime-spec, runtime.md, Start).
	NoProgram bool
}

// cleanupLimit bounds what is undone after an error.
const cleanupLimit = 30 * time.Second

// Create makes a container that stands at its gate: everything is set up, and its program does not run. On an
// error nothing of it is left; one of an op is an *OpError.
func (c *Command) Create(ctx context.Context, req CommandRequest) (*Process, error) {
	gate := req.Plan.Index(plan.Gate)
	if gate < 0 {
		return nil, errors.New("create: the plan has no gate")
	}
	return c.launch(ctx, req, gate)
}

// Run makes a container and returns once its program runs.
func (c *Command) Run(ctx context.Context, req CommandRequest) (*Process, error) {
	return c.launch(ctx, req, len(req.Plan.Ops))
}

// launch carries out the plan up to an op.
func (c *Command) launch(ctx context.Context, req CommandRequest, end int) (*Process, error) {
	ct, err := c.make(req.ID)
	if err != nil {
		return nil, err
	}
	defer ct.close()
	if req.Prepare != nil {
		err = req.Prepare(c.dir(req.ID))
	}
	group := ""
	if err == nil {
		group, err = c.freeGroup(req.Plan)
	}
	var p *Process
	if err == nil {
		p, err = ct.carryOut(ctx, req, group, end)
	}
	if err == nil {
		return p, nil
	}
	err = c.explainOOM(err, group)
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	err = errors.Join(err, ct.remove(undo))
	if p != nil {
		p.reap()
	}
	return nil, err
}

// freeGroup gives the plan's cgroup. One that has processes is somebody else's: its limits would be changed, and
// delete would kill what is in it.
func (c *Command) freeGroup(p *plan.Plan) (string, error) {
	i := groupOp(p)
	if i < 0 {
		return "", nil
	}
	tree, err := c.cgroups()
	if err != nil {
		return "", err
	}
	path := p.Ops[i].Str[0]
	if !tree.Exists(path) {
		return path, nil
	}
	pids, err := tree.Procs(path)
	if err != nil {
		return "", fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	if len(pids) > 0 {
		return "", fmt.Errorf("linux.cgroupsPath: the cgroup %s has processes already: %v", path, pids)
	}
	return path, nil
}

// carryOut walks the plan. On an error it returns what was cloned, if anything, for the caller to kill and reap.
func (ct *commandContainer) carryOut(ctx context.Context, req CommandRequest, group string, end int) (*Process, error) {
	if err := os.WriteFile(filepath.Join(ct.cmd.dir(ct.id), "config.json"), req.Config, 0o600); err != nil {
		return nil, fmt.Errorf("keep config.json: %w", err)
	}
	if err := ct.writeDown(req, group); err != nil {
		return nil, err
	}
	r, err := ct.cmd.newRun(req.Plan, ct, req.Console, req.PreserveFDs)
	if err != nil {
		return nil, err
	}
	r.id = ct.id
	defer r.close()
	if r.page, err = ct.sharedPage(); err != nil {
		return nil, err
	}
	p := &Process{}
	r.onClone = func(s spawned) error {
		p.child, p.PID = s, s.pid
		return ct.Note(NoteProcess, ct.id, ProcessNote{PID: s.pid, StartTime: s.startTime})
	}
	err = r.walk(ctx, end)
	if p.PID == 0 {
		return nil, err
	}
	var op *OpError
	if errors.As(err, &op) {
		op.explainHook(ct.hookStatus())
	}
	p.PID = r.pid()
	if p.PID != p.child.pid { // a Fork has left another one
		err = errors.Join(err, ct.Note(NoteProcess, ct.id, p.note()))
	}
	if err == nil && end == len(req.Plan.Ops) && ct.cmd.diedInExec(p.note(), limitedGroup(req.Spec, group)) {
		i := req.Plan.Index(plan.Exec)
		err = &OpError{Index: i, Kind: plan.Exec, Summary: req.Plan.Summary(i), Killed: true}
	}
	return p, err
}

// limitedGroup is the cgroup if its memory is limited: in no other can a start fail for memory.
func limitedGroup(spec *specs.Spec, group string) string {
	if spec.Linux == nil || spec.Linux.Resources == nil {
		return ""
	}
	r := spec.Linux.Resources
	if r.Memory != nil && (r.Memory.Limit != nil || r.Memory.Swap != nil) || len(r.Unified) > 0 {
		return group
	}
	return ""
}

// writeDown intends what is made outside of the plan and notes what later commands must know.
func (ct *commandContainer) writeDown(req CommandRequest, group string) error {
	n := noteOf(req.Spec, req.Bundle, group)
	n.Gate, n.Exec, n.NoProgram = req.Plan.Index(plan.Gate), req.Plan.Index(plan.Exec), req.NoProgram
	if i := n.Gate - 1; i >= 0 && req.Plan.Ops[i].Str[0] == plan.BarrierCreated {
		n.Gate = i // create returns when init meets it there; init may be on its way to the gate still
	}
	for i := n.Gate; i >= 0 && i <= n.Exec; i++ {
		if req.Plan.Ops[i].Side != plan.Parent {
			n.Ops = append(n.Ops, noteOp{i, req.Plan.Ops[i].Kind, req.Plan.Summary(i)})
		}
	}
	return ct.writeNote(n)
}

// noteOf is what the specification says.
func noteOf(spec *specs.Spec, bundle, group string) containerNote {
	n := containerNote{
		Version: spec.Version, Bundle: bundle, Rootfs: bundle, Created: time.Now().UTC(), Annotations: spec.Annotations,
		Cgroup: group, Limited: limitedGroup(spec, group) != "",
	}
	if spec.Root != nil {
		n.Rootfs = spec.Root.Path
		if !filepath.IsAbs(n.Rootfs) {
			n.Rootfs = filepath.Join(bundle, n.Rootfs)
		}
	}
	if spec.Linux != nil {
		for _, ns := range spec.Linux.Namespaces {
			n.OwnPIDs = n.OwnPIDs || ns.Type == specs.PIDNamespace && ns.Path == ""
		}
	}
	if h := spec.Hooks; h != nil {
		n.Poststart, n.Poststop = h.Poststart, h.Poststop
	}
	return n
}

// writeNote notes the container and intends what is made outside of a plan.
func (ct *commandContainer) writeNote(n containerNote) error {
	if err := ct.Note(noteContainer, ct.id, n); err != nil {
		return err
	}
	if len(n.Poststop) > 0 { // the first to be intended is the last to be released
		if err := ct.Intend(plan.Object{Kind: plan.Hooks, Name: ct.id}); err != nil {
			return err
		}
	}
	return ct.Intend(plan.Object{Kind: plan.Process, Name: ct.id})
}

// sharedPage maps the progress file. Nobody can truncate it under us but root.
func (ct *commandContainer) sharedPage() (*linux.SharedPage, error) {
	fd, err := unix.FcntlInt(ct.page.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open progress page: %w", err)
	}
	return linux.MapSharedPage(os.NewFile(uintptr(fd), ct.page.Name()))
}

// explainOOM marks a start that failed because the kernel killed init for memory.
func (c *Command) explainOOM(err error, group string) error {
	var op *OpError
	if errors.As(err, &op) && op.Killed {
		op.OOM = c.oomKills(group) > 0
	}
	return err
}

// oomKills counts the kernel's kills in a cgroup; there are none in "".
func (c *Command) oomKills(group string) uint64 {
	if group == "" {
		return 0
	}
	tree, err := c.cgroups()
	if err != nil {
		return 0
	}
	return tree.OOMKills(group)
}
