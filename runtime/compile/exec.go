package compile

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Exec compiles a further process in a running container, whose specification spec is. The plan opens the
// descriptor named pidfd, that of the container's init: one call enters all its namespaces.
func Exec(spec *specs.Spec, proc *specs.Process, o Options) (*plan.Plan, error) {
	b, err := newBuilder(spec, o)
	if err != nil {
		return nil, err
	}
	b.proc = proc
	switch {
	case proc == nil:
		return nil, bad("process", "is missing")
	case !validID(o.ID):
		return nil, bad("id", "%q is not an id: letters, digits and _ + - . only", o.ID)
	}
	if err := b.checkProcess(); err != nil {
		return nil, err
	}
	if err := b.checkLimits(); err != nil {
		return nil, err
	}
	if err := b.enterContainer(); err != nil {
		return nil, err
	}
	b.console(false)
	if err := b.session(); err != nil {
		return nil, err
	}
	filter, err := b.filter()
	if err != nil {
		return nil, err
	}
	if err := b.become(filter); err != nil {
		return nil, err
	}
	return b.finish(true)
}

// enterContainer joins the container's cgroups and then its namespaces.
func (b *builder) enterContainer() error {
	dir, err := b.cgroupPath()
	if err != nil {
		return err
	}
	pidfd := b.open("pidfd", plan.PathPidfd, plan.OpenRead)
	flags := b.ns.fresh | b.ns.joined
	b.ns.fresh = 0 // nothing is made here
	if err := b.openCgroups(dir); err != nil {
		return err
	}
	if b.o.Facts.Resctrl != "" {
		b.openResctrl()
	}
	b.openStdio(!b.o.Command)
	before, err := b.hostSide()
	if err != nil {
		return err
	}
	initial, final, err := b.affinity()
	if err != nil {
		return err
	}
	forks := flags&plan.NewPID != 0
	if !forks {
		b.then(plan.Bare(plan.Setsid))
	}
	b.then(before...)
	b.then(initial...)
	b.joinCgroups(false)
	b.then(final...)
	if flags&plan.NewUser != 0 {
		b.raiseLimits()
	}
	if flags != 0 {
		b.then(plan.JoinNS(pidfd, flags))
	}
	if forks {
		b.then(plan.Bare(plan.Fork), plan.Bare(plan.Setsid))
	}
	if flags&plan.NewUser != 0 {
		b.then(plan.Bare(plan.MapRoot))
	}
	b.ns.joined = flags
	return nil
}
