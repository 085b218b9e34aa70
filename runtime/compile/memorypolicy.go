package compile

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// memoryMode is a mode of set_mempolicy(2): its number, and whether it wants nodes.
type memoryMode struct {
	number      uint64
	none, needs bool // no nodes; at least one
}

var memoryModes = map[specs.MemoryPolicyModeType]memoryMode{
	specs.MpolDefault:            {number: 0, none: true},
	specs.MpolPreferred:          {number: 1}, // without nodes it is local
	specs.MpolBind:               {number: 2, needs: true},
	specs.MpolInterleave:         {number: 3, needs: true},
	specs.MpolLocal:              {number: 4, none: true},
	specs.MpolPreferredMany:      {number: 5, needs: true},
	specs.MpolWeightedInterleave: {number: 6, needs: true},
}

var memoryFlags = map[specs.MemoryPolicyFlagType]uint64{
	specs.MpolFNumaBalancing: plan.MemNumaBalancing, specs.MpolFRelativeNodes: plan.MemRelativeNodes, specs.MpolFStaticNodes: plan.MemStaticNodes,
}

// MemoryPolicies are the modes and flags that a specification may have, sorted.
func MemoryPolicies() (modes, flags []string) {
	for m := range memoryModes {
		modes = append(modes, string(m))
	}
	for f := range memoryFlags {
		flags = append(flags, string(f))
	}
	slices.Sort(modes)
	slices.Sort(flags)
	return modes, flags
}

// memoryPolicy says from which nodes of the machine memory comes (runtime-spec, config-linux.md, Memory policy).
func (b *builder) memoryPolicy() ([]plan.Op, error) {
	p := b.spec.Linux.MemoryPolicy
	if p == nil {
		return nil, nil
	}
	const field = "linux.memoryPolicy"
	mode, ok := memoryModes[p.Mode]
	switch {
	case !ok:
		return nil, bad(field+".mode", "unknown %q", p.Mode)
	case mode.none && p.Nodes != "":
		return nil, bad(field+".nodes", "%q: %s takes no nodes", p.Nodes, p.Mode)
	case mode.needs && p.Nodes == "":
		return nil, bad(field+".nodes", "is empty: %s needs at least one", p.Mode)
	}
	number := mode.number
	for i, f := range p.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return nil, bad(at(field+".flags", i, ""), "unknown %q", f)
		}
		number |= bit
	}
	const both = plan.MemRelativeNodes | plan.MemStaticNodes
	switch {
	case number&both == both:
		return nil, bad(field+".flags", "%s and %s exclude each other", specs.MpolFRelativeNodes, specs.MpolFStaticNodes)
	case number&both != 0 && p.Nodes == "":
		return nil, bad(field+".flags", "say how to read nodes, and there are none")
	}
	var mask []byte
	if p.Nodes != "" {
		var err error
		if mask, err = parseNumbers(field+".nodes", p.Nodes, maxNodes); err != nil {
			return nil, err
		}
	}
	return []plan.Op{plan.SetMemoryPolicy(number, p.Nodes, mask)}, nil
}
