package compile

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Container compiles the start of a container. An error names the field that has to change.
func Container(spec *specs.Spec, o Options) (*plan.Plan, error) {
	b, err := newBuilder(spec, o)
	if err != nil {
		return nil, err
	}
	if err := b.checkContainer(); err != nil {
		return nil, err
	}
	if err := b.checkRoot(); err != nil {
		return nil, err
	}
	if err := b.checkLimits(); err != nil {
		return nil, err
	}
	if err := b.prepare(); err != nil {
		return nil, err
	}
	if err := b.build(); err != nil {
		return nil, err
	}
	return b.finish(true)
}

// prepare is what the parent does before there is a process: what is wrong here costs no process.
func (b *builder) prepare() error {
	if err := b.makeCgroup(); err != nil {
		return err
	}
	b.makeResctrl()
	b.openNamespaces()
	b.openStdio(false)
	if b.o.Gate != "" {
		b.gate = b.p.NewSlot("gate")
		b.before(plan.MakeFifo(b.gate, b.o.Gate, 0, 0, plan.OpenReadWrite))
	}
	b.makeRoot()
	return b.readMounts()
}

// build is the way of the new process: into its namespaces, its mounts, its root; then what is left of it
// becomes the program.
func (b *builder) build() error {
	before, err := b.hostSide()
	if err != nil {
		return err
	}
	filter, err := b.filter()
	if err != nil {
		return err
	}
	b.enter(before...)
	if b.ns.fresh&plan.NewNet != 0 { // a pod's is its network's business
		b.then(plan.Bare(plan.Loopback))
	}
	b.moveNetDevices()
	if err := b.identity(); err != nil {
		return err
	}
	if err := b.fillRoot(); err != nil {
		return err
	}
	b.pivot()
	if err := b.session(); err != nil {
		return err
	}
	filter = b.waitForStart(filter)
	if err := b.become(filter); err != nil {
		return err
	}
	b.parentHooks("poststart", b.hooks().Poststart)
	return nil
}

// fillRoot makes all mounts while the host's are still there to take from.
func (b *builder) fillRoot() error {
	b.attachRoot()
	if err := b.doMounts(); err != nil {
		return err
	}
	if err := b.makeDevices(); err != nil {
		return err
	}
	b.console(b.devices)
	b.runtimeHooks()
	if hooks := b.hooks().CreateContainer; len(hooks) > 0 {
		b.containerHooks("createContainer", b.handState("state-creating", specs.StateCreating), hooks)
	}
	if cwd := path.Clean(b.proc.Cwd); cwd != "/" {
		b.then(plan.MakeDir(b.root, cwd, 0o755))
	}
	return nil
}

// session sets what the program inherits.
func (b *builder) session() error {
	for _, of := range []func() ([]plan.Op, error){b.personality, b.memoryPolicy} {
		ops, err := of()
		if err != nil {
			return err
		}
		b.then(ops...)
	}
	if !b.o.NoNewKeyring {
		b.then(plan.Text(plan.Keyring, "_ses."+b.container()))
	}
	return nil
}

// findProgram has create tell that there is no program. A relative path is left to exec, which knows the directory.
func (b *builder) findProgram() {
	if b.o.Gate == "" {
		return
	}
	list := candidates(b.proc.Args[0], environment(b.proc.Env))
	for _, c := range list {
		if !path.IsAbs(c) {
			return
		}
	}
	b.then(plan.Find(list, b.proc.Args[0]))
}

// waitForStart stands between create and start, and runs the hooks of start. A filter that asks a listener is
// loaded before the gate: later there may be nobody to hand its descriptor to.
func (b *builder) waitForStart(filter []plan.Op) []plan.Op {
	b.findProgram()
	start := b.hooks().StartContainer
	state := plan.NoSlot
	if len(start) > 0 {
		state = b.handState("state-created", specs.StateCreated)
	}
	if b.o.Gate != "" {
		if b.memoryEarly() {
			b.joinCgroups(true)
		}
		if len(filter) > 1 {
			b.then(filter...)
			filter = nil
		}
		b.then(plan.Meet(plan.BarrierCreated, plan.ParentWaits, plan.NoSlot, 0), plan.WaitGate(b.gate))
	}
	b.containerHooks("startContainer", state, start)
	return filter
}
