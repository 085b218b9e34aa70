package compile

import (
	"math"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// defaultPath is searched when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// hostSide is what is written through the host's procfs, before any namespace is entered.
func (b *builder) hostSide() ([]plan.Op, error) {
	var ops []plan.Op
	if v := b.proc.OOMScoreAdj; v != nil {
		if *v < -1000 || *v > 1000 {
			return nil, bad("process.oomScoreAdj", "%d is not between -1000 and 1000", *v)
		}
		score := *v
		if f := b.o.Facts; !f.CanLowerOOM && score < f.OOMScoreAdj {
			score = f.OOMScoreAdj
			b.warn("process.oomScoreAdj: %d cannot be had without CAP_SYS_RESOURCE; it becomes %d", *v, score)
		}
		ops = append(ops, plan.SetOOMScoreAdj(score))
	}
	lsm, err := b.lsm()
	return append(ops, lsm...), err
}

func (b *builder) lsm() ([]plan.Op, error) {
	var ops []plan.Op
	if profile := b.proc.ApparmorProfile; profile != "" && profile != "unconfined" || profile != "" && b.o.Facts.AppArmor {
		if !b.o.Facts.AppArmor {
			return nil, bad("process.apparmorProfile", "%q cannot be applied: this kernel has no AppArmor", profile)
		}
		ops = append(ops, plan.Text(plan.LSMExec, "apparmor/exec", "exec "+profile))
	}
	for _, label := range []struct{ field, value string }{{"process.selinuxLabel", b.proc.SelinuxLabel}, {"linux.mountLabel", b.spec.Linux.MountLabel}} {
		if label.value != "" && !b.o.Facts.SELinux {
			return nil, bad(label.field, "%q cannot be applied: this kernel has no SELinux", label.value)
		}
	}
	if label := b.proc.SelinuxLabel; label != "" {
		ops = append(ops, plan.Text(plan.LSMExec, "exec", label))
	}
	return ops, nil
}

// limits are set late, after the hooks too: a small one would stop init itself, which holds a descriptor for
// every slot.
func (b *builder) limits() []plan.Op {
	var ops []plan.Op
	for _, l := range b.proc.Rlimits {
		if n, ok := plan.RlimitNumber(l.Type); ok {
			ops = append(ops, plan.Limit(n, l.Soft, l.Hard))
		}
	}
	return ops
}

// raiseLimits sets the hard limits once more before a user namespace is entered: there nobody may raise one.
// A limit of descriptors that would leave no room for the slots waits for its turn.
func (b *builder) raiseLimits() {
	if b.proc == nil {
		return
	}
	const slots, nofile = plan.MaxSlots + 64, 7
	for _, l := range b.proc.Rlimits {
		if n, ok := plan.RlimitNumber(l.Type); ok && !(n == nofile && l.Hard < slots) {
			b.then(plan.Limit(n, l.Hard, l.Hard))
		}
	}
}

func (b *builder) checkLimits() error {
	seen := map[string]bool{}
	for i, l := range b.proc.Rlimits {
		switch _, ok := plan.RlimitNumber(l.Type); {
		case !ok || !strings.HasPrefix(l.Type, "RLIMIT_"):
			return bad(at("process.rlimits", i, "type"), "unknown %q", l.Type)
		case seen[l.Type]:
			return bad(at("process.rlimits", i, "type"), "%s is there twice", l.Type)
		case l.Soft > l.Hard:
			return bad(at("process.rlimits", i, "soft"), "%d is more than hard, %d", l.Soft, l.Hard)
		}
		seen[l.Type] = true
	}
	return nil
}

var schedulers = map[specs.LinuxSchedulerPolicy]uint64{
	specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
}

var schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02, specs.SchedFlagDLOverrun: 0x04, specs.SchedFlagKeepPolicy: 0x08,
	specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
}

// checkScheduler refuses what the kernel would ignore, or refuse without a word (sched_setattr(2)).
func checkScheduler(s *specs.Scheduler) error {
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	deadline := s.Policy == specs.SchedDeadline
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return bad("process.scheduler.nice", "%d is not between -20 and 19", s.Nice)
	case realtime && (s.Priority < 1 || s.Priority > 99):
		return bad("process.scheduler.priority", "%d is not between 1 and 99, as %s wants it", s.Priority, s.Policy)
	case !realtime && s.Priority != 0:
		return bad("process.scheduler.priority", "%d means nothing to %s: only to SCHED_FIFO and SCHED_RR", s.Priority, s.Policy)
	case !deadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return bad("process.scheduler.runtime", "with deadline and period means nothing to %s: only to SCHED_DEADLINE", s.Policy)
	}
	return nil
}

var ioClasses = map[specs.IOPriorityClass]uint64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

// scheduling is how the process competes for the processor and the disks (sched_setattr(2), ioprio_set(2)).
func (b *builder) scheduling() ([]plan.Op, error) {
	var ops []plan.Op
	if s := b.proc.Scheduler; s != nil {
		policy, ok := schedulers[s.Policy]
		if !ok {
			return nil, bad("process.scheduler.policy", "unknown %q", s.Policy)
		}
		var flags uint64
		for i, f := range s.Flags {
			bit, ok := schedulerFlags[f]
			if !ok {
				return nil, bad(at("process.scheduler.flags", i, ""), "unknown %q", f)
			}
			flags |= bit
		}
		if err := checkScheduler(s); err != nil {
			return nil, err
		}
		both := uint64(uint32(s.Priority))<<32 | uint64(uint32(s.Nice))
		ops = append(ops, plan.Numbers(plan.Scheduler, policy, flags, both, s.Runtime, s.Deadline, s.Period))
	}
	if p := b.proc.IOPriority; p != nil {
		class, ok := ioClasses[p.Class]
		if !ok {
			return nil, bad("process.ioPriority.class", "unknown %q", p.Class)
		}
		if p.Priority < 0 || p.Priority > 7 {
			return nil, bad("process.ioPriority.priority", "%d is not between 0 and 7", p.Priority)
		}
		ops = append(ops, plan.Numbers(plan.IOPriority, class<<13|uint64(p.Priority)))
	}
	return ops, nil
}

func (b *builder) personality() ([]plan.Op, error) {
	p := b.spec.Linux.Personality
	if p == nil {
		return nil, nil
	}
	if len(p.Flags) > 0 {
		return nil, bad("linux.personality.flags[0]", "unknown %q: the specification has none yet", p.Flags[0])
	}
	switch p.Domain {
	case specs.PerLinux:
		return []plan.Op{plan.Numbers(plan.Personality, 0)}, nil
	case specs.PerLinux32:
		return []plan.Op{plan.Numbers(plan.Personality, 8)}, nil
	}
	return nil, bad("linux.personality.domain", "unknown %q", p.Domain)
}

// capabilities gives the bounding set and the other four. What the runtime itself cannot give is left out, as
// the specification wants it; in a user namespace all are there to give.
func (b *builder) capabilities() (bounding uint64, sets plan.Op) {
	c := b.proc.Capabilities
	if c == nil {
		return 0, plan.SetCaps(0, 0, 0, 0)
	}
	have := b.o.Facts.Caps
	if b.ns.has(plan.NewUser) {
		have = math.MaxUint64
	}
	set := func(field string, names []string) uint64 {
		var bits uint64
		for i, name := range names {
			n, ok := plan.CapNumber(name)
			if !ok || have&(1<<n) == 0 {
				b.warn("%s: %q cannot be given on this machine", at("process.capabilities."+field, i, ""), name)
				continue
			}
			bits |= 1 << n
		}
		return bits
	}
	bounding = set("bounding", c.Bounding)
	permitted := set("permitted", c.Permitted)
	effective := set("effective", c.Effective) & permitted
	inheritable := set("inheritable", c.Inheritable)
	ambient := set("ambient", c.Ambient) & permitted & inheritable
	return bounding, plan.SetCaps(effective, permitted, inheritable, ambient)
}

// become turns init into the process: everything from the standard streams to exec. The order is what the
// kernel's rules leave. Dropping from the bounding set needs CAP_SETPCAP, so it comes first. The working
// directory is entered while init is root, which may be the only one to reach it. Without no_new_privs a
// filter needs CAP_SYS_ADMIN, so it is loaded before the user changes; with it, as late as possible, so that
// it need not allow what init still does. Memory is joined last: the limit holds the program only.
func (b *builder) become(filter []plan.Op) error {
	scheduling, err := b.scheduling()
	if err != nil {
		return err
	}
	for fd, slot := range b.stdio {
		if slot != plan.NoSlot {
			b.then(plan.SetStdio(slot, uint64(fd)))
		}
	}
	b.then(b.limits()...)
	b.then(scheduling...)
	bounding, sets := b.capabilities()
	b.then(plan.SetBounding(bounding), plan.Text(plan.Chdir, b.proc.Cwd))
	if !b.proc.NoNewPrivileges {
		b.then(filter...)
	}
	u := b.proc.User
	b.then(plan.SetUser(u.UID, u.GID, u.AdditionalGids, u.Umask), sets)
	if b.proc.NoNewPrivileges {
		b.then(plan.Bare(plan.NoNewPrivs))
	}
	if !b.memoryEarly() {
		b.joinCgroups(true)
	}
	if b.proc.NoNewPrivileges {
		b.then(filter...)
	}
	env := environment(b.proc.Env)
	b.then(plan.Execute(candidates(b.proc.Args[0], env), b.proc.Args, env, b.o.PreserveFDs))
	return nil
}

// memoryEarly: see Options.Command.
func (b *builder) memoryEarly() bool { return b.o.Command && b.o.Gate != "" }

// environment keeps the last of the entries of one name.
func environment(env []string) []string {
	last := map[string]int{}
	for i, s := range env {
		name, _, _ := strings.Cut(s, "=")
		last[name] = i
	}
	var out []string
	for i, s := range env {
		if name, _, _ := strings.Cut(s, "="); last[name] == i {
			out = append(out, s)
		}
	}
	return out
}

// candidates are the files that exec tries, as execvp(3) finds them.
func candidates(file string, env []string) []string {
	if strings.Contains(file, "/") {
		return []string{file}
	}
	search := defaultPath
	for _, s := range env {
		if p, ok := strings.CutPrefix(s, "PATH="); ok && p != "" {
			search = p
		}
	}
	var list []string
	seen := map[string]bool{}
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		if c := strings.TrimRight(dir, "/") + "/" + file; !seen[c] {
			seen[c] = true
			list = append(list, c)
		}
	}
	return list
}
