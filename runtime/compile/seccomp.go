package compile

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// newListener is SECCOMP_FILTER_FLAG_NEW_LISTENER (seccomp(2)).
const newListener = 8

// filter gives the ops that load the seccomp profile, and hand its notify descriptor to the listener if the
// profile has one.
func (b *builder) filter() ([]plan.Op, error) {
	s := b.spec.Linux.Seccomp
	if s == nil {
		return nil, nil
	}
	notify, err := checkNotify(s)
	switch {
	case err != nil:
		return nil, err
	case !b.o.Facts.Seccomp:
		return nil, bad("linux.seccomp", "this kernel takes no filters")
	case b.o.Seccomp == nil:
		return nil, bad("linux.seccomp", "nobody here can compile a profile")
	}
	bpf, flags, description, err := b.o.Seccomp(s)
	if err != nil {
		return nil, err // it names the field
	}
	if !notify {
		return []plan.Op{plan.LoadSeccomp(plan.NoSlot, description, bpf, flags&^newListener)}, nil
	}
	slot := b.p.NewSlot("seccomp notify")
	return []plan.Op{
		plan.LoadSeccomp(slot, description, bpf, flags|newListener),
		plan.Meet(plan.BarrierSeccomp, plan.ParentWaits, slot, 1),
		plan.SendState(slot, s.ListenerPath, b.notifyState(s)),
	}, nil
}

// checkNotify says whether somebody is asked about system calls (runtime-spec, config-linux.md, Seccomp).
func checkNotify(s *specs.LinuxSeccomp) (bool, error) {
	if s.ListenerMetadata != "" && s.ListenerPath == "" {
		return false, bad("linux.seccomp.listenerMetadata", "is for a listener, and linux.seccomp.listenerPath is empty")
	}
	if s.DefaultAction == specs.ActNotify {
		return false, bad("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY would ask about the very call that hands the listener over")
	}
	for i, c := range s.Syscalls {
		if c.Action != specs.ActNotify {
			continue
		}
		for _, name := range c.Names {
			if name == "sendmsg" {
				return false, bad(at("linux.seccomp.syscalls", i, "names"), "SCMP_ACT_NOTIFY for sendmsg would ask about the very call that hands the listener over")
			}
		}
		if s.ListenerPath == "" {
			return false, bad("linux.seccomp.listenerPath", "is missing: syscalls[%d] has SCMP_ACT_NOTIFY", i)
		}
		return true, nil
	}
	return false, nil
}

// notifyState is what the listener gets with the descriptor (runtime-spec, config-linux.md, The Container
// Process State). The engine fills in pids and status.
func (b *builder) notifyState(s *specs.LinuxSeccomp) []byte {
	state, _ := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Metadata: s.ListenerMetadata, State: b.state(),
	})
	return state
}
