//go:build cgo

package seccomp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// insnSize is that of struct sock_filter.
const insnSize = 8

// maxInsns is the kernel's BPF_MAXINSNS.
const maxInsns = 4096

// compile builds the filter. Errors begin with the field below linux.seccomp.
//
// Each architecture gets a libseccomp context of its own, and the results are
// put behind a switch: in one context the time grows with the square of what is
// in it, and the default profile has three architectures (30 ms against 5).
func compile(p *specs.LinuxSeccomp) (*Filter, error) {
	program, err := parse(p)
	if err != nil {
		return nil, err
	}
	parts := make([][]byte, len(program.arches))
	errs := make([]error, len(program.arches))
	var group sync.WaitGroup
	for i, arch := range program.arches {
		group.Go(func() { parts[i], errs[i] = program.emit(arch) })
	}
	group.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return nil, errs[i]
	}
	bpf := program.newer.prefix(tokensOf(program.arches), program.fallback)
	bpf = append(bpf, join(program.arches, parts)...)
	if n := len(bpf) / insnSize; n == 0 || n > maxInsns {
		return nil, fmt.Errorf("syscalls: the filter has %d instructions; the kernel takes 1 to %d", n, maxInsns)
	}
	return &Filter{BPF: bpf, Flags: program.flags, Insns: len(bpf) / insnSize, Notify: program.notify}, nil
}

// program is a profile in libseccomp's words.
type program struct {
	fallback lib.ScmpAction
	arches   []lib.ScmpArch // the machine's own first
	rules    []rule
	newer    newer
	flags    uint32
	notify   bool
}

// rule is one action for some calls under some conditions.
type rule struct {
	field string // of config.json, for errors
	names []string
	calls []lib.ScmpSyscall
	act   lib.ScmpAction
	sets  [][]lib.ScmpCondition
}

// parse checks the profile and resolves its words.
func parse(p *specs.LinuxSeccomp) (*program, error) {
	if err := CheckLibrary(); err != nil {
		return nil, fmt.Errorf("defaultAction: %w", err)
	}
	var err error
	out := &program{}
	if out.flags, err = loadFlags(p.Flags); err != nil {
		return nil, err
	}
	if out.fallback, err = actionOf("defaultAction", p.DefaultAction, p.DefaultErrnoRet); err != nil {
		return nil, err
	}
	if p.DefaultAction == specs.ActNotify {
		return nil, errors.New("defaultAction: SCMP_ACT_NOTIFY would stop the container's start itself; name the system calls")
	}
	if out.arches, err = archesOf(p.Architectures); err != nil {
		return nil, err
	}
	for i := range p.Syscalls {
		if err := out.add(fmt.Sprintf("syscalls[%d]", i), &p.Syscalls[i]); err != nil {
			return nil, err
		}
	}
	if out.notify {
		if p.ListenerPath == "" {
			return nil, errors.New("listenerPath: is missing, and a system call has SCMP_ACT_NOTIFY")
		}
		out.flags |= flagNewListener
	}
	return out, nil
}

// add resolves one entry of the profile.
func (p *program) add(field string, s *specs.LinuxSyscall) error {
	if len(s.Names) == 0 {
		return fmt.Errorf("%s.names: is empty", field)
	}
	act, err := actionOf(field+".action", s.Action, s.ErrnoRet)
	if err != nil {
		return err
	}
	sets, err := conditions(field, s.Args)
	if err != nil {
		return err
	}
	if s.Action == specs.ActNotify {
		if slices.Contains(s.Names, "write") {
			return fmt.Errorf("%s.names: write cannot have SCMP_ACT_NOTIFY: the container could not hand its listener over", field)
		}
		p.notify = true
	}
	r := rule{field: field, act: act, sets: sets}
	for j, name := range s.Names {
		if name == "" {
			return fmt.Errorf("%s.names[%d]: is empty", field, j)
		}
		call, err := lib.GetSyscallFromName(name)
		if err != nil {
			// Profiles name calls of many kernels; see newer.go for those that
			// are newer than libseccomp. All others do not exist.
			p.newer.add(name, act, len(sets) == 0)
			continue
		}
		p.newer.see(name)
		r.names, r.calls = append(r.names, name), append(r.calls, call)
	}
	// libseccomp refuses a rule that says what the default says.
	if act != p.fallback {
		p.rules = append(p.rules, r)
	}
	return nil
}

// conditions turns arguments into sets of conditions: all of one set must hold,
// of any set. Usually there is one. libseccomp takes an argument only once in a
// set; where a profile has one twice, each condition is a set of its own, which
// is what runc has always made of it.
func conditions(field string, args []specs.LinuxSeccompArg) ([][]lib.ScmpCondition, error) {
	var all []lib.ScmpCondition
	var seen [6]int
	repeated := false
	for i, a := range args {
		op, ok := operators[a.Op]
		if !ok {
			return nil, fmt.Errorf("%s.args[%d].op: unknown operator %q", field, i, a.Op)
		}
		if a.Index >= uint(len(seen)) {
			return nil, fmt.Errorf("%s.args[%d].index: %d is above 5; a system call has six arguments", field, i, a.Index)
		}
		c, err := lib.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return nil, fmt.Errorf("%s.args[%d]: %w", field, i, err)
		}
		all = append(all, c)
		seen[a.Index]++
		repeated = repeated || seen[a.Index] > 1
	}
	switch {
	case len(all) == 0:
		return nil, nil
	case !repeated:
		return [][]lib.ScmpCondition{all}, nil
	}
	sets := make([][]lib.ScmpCondition, len(all))
	for i := range all {
		sets[i] = all[i : i+1]
	}
	return sets, nil
}

// emit builds the filter of one architecture. It kills the calls of others.
func (p *program) emit(arch lib.ScmpArch) ([]byte, error) {
	ctx, err := lib.NewFilter(p.fallback)
	if err != nil {
		return nil, fmt.Errorf("defaultAction: make a filter: %w", err)
	}
	defer ctx.Release()
	if native := p.arches[0]; arch != native {
		if err := errors.Join(ctx.AddArch(arch), ctx.RemoveArch(native)); err != nil {
			return nil, fmt.Errorf("architectures: make a filter for %s: %w", arch, err)
		}
	}
	for i := range p.rules {
		r := &p.rules[i]
		for j, call := range r.calls {
			if err := r.addTo(ctx, call); err != nil {
				return nil, fmt.Errorf("%s: add %s on %s: %w", r.field, r.names[j], arch, err)
			}
		}
	}
	return export(ctx)
}

func (r *rule) addTo(ctx *lib.ScmpFilter, call lib.ScmpSyscall) error {
	if len(r.sets) == 0 {
		return ctx.AddRule(call, r.act)
	}
	for _, set := range r.sets {
		if err := ctx.AddRuleConditional(call, r.act, set); err != nil {
			return err
		}
	}
	return nil
}

// export turns a context into bytes: a binary tree of system calls where the
// library can (2.5.0), which costs a start a third of what a list does.
func export(ctx *lib.ScmpFilter) ([]byte, error) {
	if err := ctx.SetOptimize(2); err != nil {
		var old lib.VersionError
		if !errors.As(err, &old) {
			return nil, fmt.Errorf("syscalls: optimize the filter: %w", err)
		}
	}
	// A memfd rather than a pipe: libseccomp writes from C, and a filter that
	// is larger than a pipe would stop there.
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("syscalls: make a file for the filter: %w", err)
	}
	file := os.NewFile(uintptr(fd), "seccomp filter")
	defer file.Close()
	if err := ctx.ExportBPF(file); err != nil {
		return nil, fmt.Errorf("syscalls: export the filter: %w", err)
	}
	bpf, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("syscalls: read the filter back: %w", err)
	}
	return bpf, nil
}
