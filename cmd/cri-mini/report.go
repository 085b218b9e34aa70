package main

import (
	"context"
	"encoding/json"
	"fmt"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/seccomp"
)

// handlers are what pods may ask for by name; all are this engine.
func (d *daemon) handlers() []*criapi.RuntimeHandler {
	f := &criapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: d.facts.RecursiveReadonly, UserNamespaces: d.facts.UserNS && d.facts.IdmapMounts}
	out := []*criapi.RuntimeHandler{{Name: "", Features: f}}
	for _, h := range d.c.Runtime.Handlers {
		out = append(out, &criapi.RuntimeHandler{Name: h, Features: f})
	}
	return out
}

// features of the runtime whatever the handler. A pod in a user namespace may have the node's network: its /sys is bound.
func (d *daemon) features() *criapi.RuntimeFeatures {
	return &criapi.RuntimeFeatures{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: d.facts.UserNS && d.facts.IdmapMounts, MountOptions: true}
}

// chooseDriver decides who makes cgroups, and says why.
func chooseDriver(ctx context.Context, c config, facts *host.Facts) (why string, err error) {
	facts.CgroupDriver, why, err = cgroup.ChooseDriver(ctx, c.Runtime.CgroupDriver, cgroup.Layout(facts.Cgroup))
	if err != nil {
		return "", fmt.Errorf("runtime.cgroup_driver: %q: %w", c.Runtime.CgroupDriver, err)
	}
	return why, nil
}

// cgroupDriver is the choice in CRI's words.
func (d *daemon) cgroupDriver() criapi.CgroupDriver {
	if d.facts.CgroupDriver == host.DriverSystemd {
		return criapi.CgroupDriver_SYSTEMD
	}
	return criapi.CgroupDriver_CGROUPFS
}

func (d *daemon) info() (map[string]string, error) {
	b, err := json.Marshal(map[string]any{"host": d.facts, "config": d.c, "init": d.engine.Sealed(), "cgroupDriver": d.facts.CgroupDriver, "cgroupDriverBecause": d.driver, "seccompFiltersCompiled": seccomp.Misses()})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	return map[string]string{"config": string(b)}, nil
}
