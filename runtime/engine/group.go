package engine

import (
	"context"
	"encoding/json"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

func (r *run) cgroupCreate(ctx context.Context, op *plan.Op) error {
	resources, err := decodeResources(op)
	if err != nil {
		return err
	}
	if err := r.intend(plan.Cgroup, op.Str[0], plan.InHost); err != nil {
		return err
	}
	return r.cgroups.Create(ctx, op.Str[0], resources)
}

// unitStart has systemd make a slice, or a scope around the process that was cloned and waits.
func (r *run) unitStart(ctx context.Context, op *plan.Op) error {
	resources, err := decodeResources(op)
	if err != nil {
		return err
	}
	if err := r.intend(plan.Cgroup, op.Str[0], plan.InHost); err != nil {
		return err
	}
	if r.child.pid == 0 {
		return r.cgroups.Create(ctx, op.Str[0], resources)
	}
	return r.cgroups.StartScope(ctx, op.Str[0], cgroup.Scope{PID: r.child.pid, Resources: resources, Properties: op.List[0]})
}

func decodeResources(op *plan.Op) (*specs.LinuxResources, error) {
	resources := &specs.LinuxResources{}
	if len(op.Blob) == 0 {
		return resources, nil
	}
	if err := json.Unmarshal(op.Blob, resources); err != nil {
		return nil, fmt.Errorf("decode resources: %w", err)
	}
	return resources, nil
}

// groupOp is the index of the op that makes the group of the plan's process, or -1. It comes behind that of a slice.
func groupOp(p *plan.Plan) int {
	for i := len(p.Ops) - 1; i >= 0; i-- {
		if k := p.Ops[i].Kind; k == plan.CgroupCreate || k == plan.UnitStart {
			return i
		}
	}
	return -1
}
