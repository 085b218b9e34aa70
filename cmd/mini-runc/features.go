package main

import (
	"context"
	"encoding/json"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	oci "github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/runtime/seccomp"
)

// likeRunc is the version of runc whose command line this is.
const likeRunc = "1.5.2"

// features prints what of runtime-spec this program can do (runtime-spec, features.md). Who starts containers through
// it decides by that, so what is refused at create is false here.
func features(_ context.Context, a *app, args []string) error {
	if _, err := parse(newFlags("features"), args, 0, 0); err != nil {
		return err
	}
	if err := needLibrary(); err != nil {
		return err
	}
	if err := a.probe(); err != nil {
		return err
	}
	if err := seccomp.CheckLibrary(); err != nil {
		a.log.warn(err.Error())
	}
	out := json.NewEncoder(a.out)
	out.SetIndent("", "    ")
	return out.Encode(oci.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  compile.MountOptions(),
		Linux:         a.linuxFeatures(),
		// The names are runc's: callers look for them.
		Annotations: map[string]string{
			"org.opencontainers.runc.version":            likeRunc,
			"org.opencontainers.runc.checkpoint.enabled": "true", // whether the machine has criu is another question
			"io.github.seccomp.libseccomp.version":       seccomp.LibraryVersion(),
			// Ours: what the library and this kernel can do, and how many profiles were compiled below --root; the
			// others were kept.
			"io.github.cri-mini.libseccomp.api-level":     strconv.FormatUint(uint64(seccomp.APILevel()), 10),
			"io.github.cri-mini.seccomp.filters-compiled": strconv.FormatInt(a.compiledFilters(), 10),
		},
		PotentiallyUnsafeConfigAnnotations: []string{"bundle", "org.criu.config"},
	})
}

func (a *app) linuxFeatures() *oci.Linux {
	yes, no := true, false
	known := seccomp.Words()
	var namespaces []string
	for _, t := range compile.NamespaceTypes() {
		namespaces = append(namespaces, string(t))
	}
	idmap := a.facts.IdmapMounts
	modes, flags := compile.MemoryPolicies()
	return &oci.Linux{
		Namespaces:   namespaces,
		Capabilities: plan.CapNames()[:a.facts.LastCap+1],
		Cgroup:       &oci.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
		Seccomp: &oci.Seccomp{
			Enabled: &a.facts.Seccomp, Actions: known.Actions, Operators: known.Operators, Archs: known.Archs,
			KnownFlags: known.Flags, SupportedFlags: known.Flags,
		},
		Apparmor:        &oci.Apparmor{Enabled: &yes},
		Selinux:         &oci.Selinux{Enabled: &yes},
		IntelRdt:        &oci.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
		MemoryPolicy:    &oci.MemoryPolicy{Modes: modes, Flags: flags},
		MountExtensions: &oci.MountExtensions{IDMap: &oci.IDMap{Enabled: &idmap}},
		NetDevices:      &oci.NetDevices{Enabled: &yes},
	}
}
