package compile

import (
	"encoding/json"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

func (b *builder) hooks() *specs.Hooks {
	if b.spec.Hooks == nil {
		return &specs.Hooks{}
	}
	return b.spec.Hooks
}

// hasRuntimeHooks: hooks that run outside before the pivot want to see the root file system on the host.
func (b *builder) hasRuntimeHooks() bool {
	return len(b.hooks().Prestart)+len(b.hooks().CreateRuntime) > 0
}

func (b *builder) checkHooks() error {
	h := b.hooks()
	for _, list := range []struct {
		kind  string
		hooks []specs.Hook
	}{
		{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer}, {"poststart", h.Poststart}, {"poststop", h.Poststop},
	} {
		for i, hook := range list.hooks {
			field := at("hooks."+list.kind, i, "")
			if !path.IsAbs(hook.Path) {
				return bad(field+".path", "%q is relative", hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return bad(field+".timeout", "%d is not more than 0", *hook.Timeout)
			}
		}
	}
	return nil
}

// state is the container's as hooks see it, without its pid and status (runtime-spec, runtime.md, State).
func (b *builder) state() specs.State {
	return specs.State{Version: specs.Version, ID: b.container(), Bundle: b.o.Bundle, Annotations: b.spec.Annotations}
}

func (b *builder) stateTemplate() []byte {
	template, _ := json.Marshal(b.state())
	return template
}

func hookTimeout(h specs.Hook) uint64 {
	if h.Timeout == nil {
		return 0
	}
	return uint64(*h.Timeout)
}

// parentHooks run in the runtime's namespaces.
func (b *builder) parentHooks(kind string, hooks []specs.Hook) {
	for _, h := range hooks {
		op := plan.RunHook(plan.Parent, plan.NoSlot, kind, h.Path, h.Args, h.Env, hookTimeout(h))
		op.Blob = b.stateTemplate()
		b.then(op)
	}
}

// runtimeHooks: init stands still with all mounts made, before the pivot.
func (b *builder) runtimeHooks() {
	if !b.hasRuntimeHooks() {
		return
	}
	b.then(plan.Meet("mounted", plan.ParentWaits, plan.NoSlot, 0))
	b.parentHooks("prestart", b.hooks().Prestart)
	b.parentHooks("createRuntime", b.hooks().CreateRuntime)
	b.then(plan.Meet("hooks", plan.InitWaits, plan.NoSlot, 0))
}

// containerHooks run in the container's namespaces; the parent hands their state over.
func (b *builder) containerHooks(kind string, state plan.Slot, hooks []specs.Hook) {
	for _, h := range hooks {
		b.then(plan.RunHook(plan.Init, state, kind, h.Path, h.Args, h.Env, hookTimeout(h)))
	}
}

// handState writes the state down and hands it over. It knows the pid, so it is made after the clone; and the
// state of startContainer hooks is handed over before the gate, because who opens that may be another process.
func (b *builder) handState(name string, status specs.ContainerState) plan.Slot {
	slot := b.p.NewSlot(name)
	b.then(
		plan.Meet(name, plan.ParentWaits, plan.NoSlot, 0),
		plan.WriteState(slot, string(status), b.stateTemplate()),
		plan.Meet(name, plan.InitWaits, slot, 1),
	)
	return slot
}
