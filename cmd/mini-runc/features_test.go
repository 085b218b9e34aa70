package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	oci "github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
)

// TestFeatures: what it says can be done is taken by create, and what it says cannot is refused.
func TestFeatures(t *testing.T) {
	b := newBundle(t, "exit 0")
	var f oci.Features
	must(t, json.Unmarshal([]byte(b.ok("features")), &f))
	if id := f.Linux.MountExtensions.IDMap.Enabled; id == nil || !*id { // TestIdmappedMounts takes it at its word
		t.Error("no idmapped mounts")
	}
	if f.OCIVersionMax != specs.Version || len(f.Hooks) != 6 || f.Annotations["io.github.seccomp.libseccomp.version"] == "" {
		t.Errorf("%+v", f)
	}
	for _, has := range []struct {
		list []string
		word string
	}{
		{f.MountOptions, "rro"}, {f.MountOptions, "ridmap"}, {f.MountOptions, "rslave"}, {f.Linux.Namespaces, "time"},
		{f.Linux.Capabilities, "CAP_CHOWN"}, {f.Linux.Seccomp.Actions, "SCMP_ACT_ERRNO"}, {f.Linux.Seccomp.Operators, "SCMP_CMP_MASKED_EQ"},
		{f.Linux.Seccomp.Archs, "SCMP_ARCH_X86_64"}, {f.Linux.Seccomp.Archs, "SCMP_ARCH_X32"}, {f.Linux.Seccomp.KnownFlags, "SECCOMP_FILTER_FLAG_LOG"},
	} {
		if !slices.Contains(has.list, has.word) {
			t.Errorf("no %s in %q", has.word, has.list)
		}
	}
	l := f.Linux
	if !*l.NetDevices.Enabled || !*l.IntelRdt.Enabled || !*l.IntelRdt.Schemata || !*l.IntelRdt.Monitoring {
		t.Errorf("netDevices %+v, intelRdt %+v", l.NetDevices, l.IntelRdt)
	}
	if len(l.MemoryPolicy.Modes) != 7 || len(l.MemoryPolicy.Flags) != 3 {
		t.Errorf("memoryPolicy %+v", l.MemoryPolicy)
	}
	b.write()
	words := "systemd cannot be reached"
	if _, _, err := cgroup.ChooseDriver(t.Context(), host.DriverSystemd, cgroup.Layout{}); err == nil {
		words = "not of the form slice:prefix:name" // see TestSystemdLife for what it can
	}
	b.fails(words, "--systemd-cgroup", "run", "x")
	all := make([]specs.LinuxSeccompFlag, 0, len(f.Linux.Seccomp.SupportedFlags))
	for _, flag := range f.Linux.Seccomp.SupportedFlags {
		if flag != string(specs.LinuxSeccompFlagWaitKillableRecv) { // goes with a listener
			all = append(all, specs.LinuxSeccompFlag(flag))
		}
	}
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: all}
	for _, arch := range f.Linux.Seccomp.Archs {
		b.spec.Linux.Seccomp.Architectures = append(b.spec.Linux.Seccomp.Architectures, specs.Arch(arch))
	}
	b.write()
	b.ok("run", "x")
}

// TestSpecRootless: the file has one user, the caller, and runs.
func TestSpecRootless(t *testing.T) {
	b := newBundle(t, "")
	must(t, os.RemoveAll(filepath.Join(b.dir, "config.json")))
	b.ok("spec", "--rootless")
	text, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
	must(t, err)
	var s specs.Spec
	must(t, json.Unmarshal(text, &s))
	if s.Linux.Resources != nil || len(s.Linux.UIDMappings) != 1 || s.Linux.UIDMappings[0] != (specs.LinuxIDMapping{HostID: uint32(os.Geteuid()), Size: 1}) {
		t.Errorf("%s", text)
	}
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "echo $(busybox id -u) $(cat /proc/self/uid_map | busybox tr -s ' ')"}
	s.Linux.CgroupsPath = b.spec.Linux.CgroupsPath
	must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin/cat")))
	b.spec = &s
	b.write()
	want(t, b.ok("run", "x"), "0 0 0 1\n")
}
