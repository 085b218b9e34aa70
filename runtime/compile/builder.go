package compile

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// builder collects a plan. What the parent does before there is a process goes to pre, everything from the
// clone on goes to post, in the order in which it shall happen.
type builder struct {
	o    Options
	spec *specs.Spec
	proc *specs.Process
	ns   namespaces

	p         *plan.Plan
	pre, post []plan.Op
	clone     plan.Op

	root       plan.Slot // the root file system, opened by init
	rootTree   plan.Slot // its detached tree, or NoSlot
	rootPath   string    // where it is attached
	stdio      [3]plan.Slot
	gate       plan.Slot
	cgroups    []joinFile
	scope      []plan.Op // what puts the new process into its cgroups, where systemd does it
	memoryOut  plan.Slot // the memory group that init came from
	unifiedIn  bool      // the process is in its group of the v2 hierarchy
	mounts     []mount
	maps       map[string]plan.Slot // user namespaces for the maps of mounts, by their text
	crossFirst plan.Slot            // trees that the parent hands over after the clone
	cross      []plan.Op
	devices    bool // /dev is ours to fill
	rootShown  bool // the parent has the root's descriptor
}

func newBuilder(spec *specs.Spec, o Options) (*builder, error) {
	if spec == nil {
		return nil, bad("config.json", "is missing")
	}
	if err := checkVersion(spec.Version); err != nil {
		return nil, err
	}
	if spec.Linux == nil {
		s := *spec
		s.Linux = &specs.Linux{}
		spec = &s
	}
	b := &builder{o: o, spec: spec, proc: spec.Process, p: plan.New(), clone: plan.MakeProcess(0), maps: map[string]plan.Slot{}}
	b.root, b.rootTree, b.gate, b.memoryOut = plan.NoSlot, plan.NoSlot, plan.NoSlot, plan.NoSlot
	b.stdio = [3]plan.Slot{plan.NoSlot, plan.NoSlot, plan.NoSlot}
	return b, b.readNamespaces()
}

func (b *builder) before(ops ...plan.Op) { b.pre = append(b.pre, ops...) }
func (b *builder) then(ops ...plan.Op)   { b.post = append(b.post, ops...) }

// container is the id of the container, which for an exec is not its own.
func (b *builder) container() string {
	if b.o.Container != "" {
		return b.o.Container
	}
	return b.o.ID
}

// open opens a file on the parent side before the clone.
func (b *builder) open(name, file string, flags uint64) plan.Slot {
	slot := b.p.NewSlot(name)
	b.before(plan.Open(slot, file, flags, b.where(file)))
	return slot
}

// where says in which mount namespace the parent looks a path up.
func (b *builder) where(file string) uint64 {
	if b.private(file) {
		return plan.InPrivate
	}
	return plan.InHost
}

func (b *builder) private(file string) bool {
	dir := strings.TrimRight(b.o.PrivateDir, "/")
	return dir != "" && strings.HasPrefix(path.Clean(file), dir+"/")
}

func (b *builder) warn(format string, args ...any) {
	if b.o.Warn != nil {
		b.o.Warn(fmt.Sprintf(format, args...))
	}
}

// finish puts the parts together. The caller's descriptors come in the last slots: init finds them there.
func (b *builder) finish(clone bool) (*plan.Plan, error) {
	for i := range b.o.PreserveFDs {
		if i >= plan.MaxSlots {
			return nil, bad("preserve-fds", "%d is more than %d", b.o.PreserveFDs, plan.MaxSlots)
		}
		name := fmt.Sprintf("%s%d", plan.PathPreserved, 3+i)
		b.open(name, name, plan.OpenRead)
	}
	b.p.Add(b.pre...)
	if clone {
		b.p.Add(b.clone)
	}
	b.p.Add(b.post...)
	for i := range b.p.Ops {
		if s, ok := withNUL(&b.p.Ops[i]); ok {
			return nil, fmt.Errorf("op %s: the string %q holds a NUL byte", b.p.Ops[i].Kind, s)
		}
	}
	return b.p, b.p.Check()
}

func withNUL(op *plan.Op) (string, bool) {
	for _, list := range [][]string{op.Str[:], op.List[0], op.List[1], op.List[2]} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return s, true
			}
		}
	}
	return "", false
}
