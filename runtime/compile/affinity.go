package compile

import "github.com/cri-mini/cri-mini/runtime/plan"

// affinity gives the ops that pin an exec: before it joins the container's cgroups, and after (runtime-spec,
// config.md, execCPUAffinity). What the cpuset of a group allows replaces the first.
func (b *builder) affinity() (initial, final []plan.Op, err error) {
	a := b.proc.ExecCPUAffinity
	if a == nil {
		return nil, nil, nil
	}
	if initial, err = pin("process.execCPUAffinity.initial", a.Initial); err != nil {
		return nil, nil, err
	}
	final, err = pin("process.execCPUAffinity.final", a.Final)
	return initial, final, err
}

func pin(field, cpus string) ([]plan.Op, error) {
	if cpus == "" {
		return nil, nil
	}
	mask, err := parseNumbers(field, cpus, maxCPUs)
	if err != nil {
		return nil, err
	}
	return []plan.Op{plan.SetAffinity(cpus, mask)}, nil
}

// startsOutside: the process has to be pinned before it joins the cgroups, so it cannot be born in one.
func (b *builder) startsOutside() bool {
	return b.proc != nil && b.proc.ExecCPUAffinity != nil && b.proc.ExecCPUAffinity.Initial != ""
}
