package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ownMount makes a directory that is a private mount of its own, with what the mounts say below it. They go after the pods.
func (n *node) ownMount(name string, mounts ...[]string) string {
	n.t.Helper()
	dir := filepath.Join(n.Dir, name)
	if err := os.MkdirAll(filepath.Join(dir, "below"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	mustRun(n.t, "mount", "--bind", dir, dir)
	n.t.Cleanup(func() {
		n.removeAll()
		mustRun(n.t, "umount", "-R", dir)
		_ = os.RemoveAll(dir)
	})
	mustRun(n.t, "mount", "--make-private", dir)
	for _, args := range mounts {
		mustRun(n.t, append([]string{"mount"}, append(args, filepath.Join(dir, "below"))...)...)
	}
	return dir
}

func mapped(m *criapi.Mount) {
	m.UidMappings, m.GidMappings = usernsOptions().Uids, usernsOptions().Gids
}

// TestVolumeOnAReadOnlyMount: a volume that may be written gives no right to what the node has mounted read-only.
func TestVolumeOnAReadOnlyMount(t *testing.T) {
	n := start(t)
	dir := n.ownMount("read-only")
	mustRun(t, "mount", "-o", "remount,bind,ro,nosuid", dir)
	plain := n.runPod("plain").run("main", "", idle, mount(dir, "/volume"))
	user := n.runPod("user", usernsPod).run("main", "", idle, usernsContainer, mount(dir, "/volume", mapped))
	for name, c := range map[string]*container{"node": plain, "pod": user} {
		if r, err := c.tryExec(5, "echo > /volume/file"); err != nil || !strings.Contains(string(r.Stderr), "ead-only") {
			t.Errorf("root of the user namespace of the %s writes to a read-only mount: %d %q %v", name, r.GetExitCode(), r.GetStderr(), err)
		}
		if got := c.exec("grep ' /volume ' /proc/self/mountinfo"); !strings.Contains(got, " ro,nosuid") {
			t.Errorf("user namespace of the %s: the volume is mounted as %q", name, got)
		}
	}
}

// TestMappedVolumeKeepsWhatCannotBeMapped: a procfs somewhere below a volume has no idmapped mounts, and keeps its ids.
func TestMappedVolumeKeepsWhatCannotBeMapped(t *testing.T) {
	n := start(t)
	dir := n.ownMount("below", []string{"-t", "proc", "proc"})
	readOnly := func(m *criapi.Mount) { m.Readonly, m.RecursiveReadOnly = true, true }
	c := n.runPod("below", usernsPod).run("main", "", idle, usernsContainer, mount(dir, "/volume", mapped), mount(dir, "/rro", mapped, readOnly))
	if r, err := c.tryExec(5, "echo > /rro/below/sys/kernel/domainname || echo > /rro/file"); err != nil || strings.Count(string(r.GetStderr()), "ead-only") != 2 {
		t.Errorf("writes to a volume that is recursively read-only: %d %q %v", r.GetExitCode(), r.GetStderr(), err)
	}
	if got := c.exec("stat -c %u /volume /volume/below/sys"); got != "0\n65534" {
		t.Errorf("the volume and the procfs below it belong to %q", got)
	}
}

// TestVolumeThatCannotBeMapped says so, and the container's end is a failed start.
func TestVolumeThatCannotBeMapped(t *testing.T) {
	n := start(t)
	c := n.runPod("unmappable", usernsPod).create("main", "true", usernsContainer, mount("/proc/sys", "/volume", mapped))
	err := c.start()
	mustFail(t, err, codes.Unknown, "open_tree /proc/sys", "the file system does not support idmapped mounts")
	if st := c.status(); st.Reason != "StartError" || !strings.Contains(st.Message, "idmapped") {
		t.Errorf("status: %s %q", st.Reason, st.Message)
	}
}

// TestPropagationNeedsPeers: what could never propagate is not granted.
func TestPropagationNeedsPeers(t *testing.T) {
	n := start(t)
	dir := n.ownMount("private")
	p := n.runPod("private", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	both, in := criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	asks := func(how criapi.MountPropagation) func(*criapi.ContainerConfig) {
		return mount(dir, "/volume", func(m *criapi.Mount) { m.Propagation = how })
	}
	for _, how := range []criapi.MountPropagation{both, in} {
		_, err := p.tryCreate(containerConfig("bad", "true", asks(how)))
		mustFail(t, err, codes.InvalidArgument, "mounts[0].propagation: "+how.String(), "which is private", "--make-rshared "+dir)
	}
	mustRun(t, "mount", "--make-shared", dir)
	p.run("shared", "", idle, asks(both))
}
