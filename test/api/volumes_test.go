package api

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// pullVolume pulls an image of a few files and gives its id and its digest reference.
func (n *node) pullVolume(reg *registry) (id, ref string) {
	n.t.Helper()
	reg.push("volume", daemon.NewImage(daemon.Layer([]daemon.File{
		{Name: "data", Content: "weights\n"}, {Name: "tool", Mode: 0o755, Content: "#!/bin/sh\necho works\n"},
		{Name: "part/", Mode: 0o755}, {Name: "part/inner/", Mode: 0o755}, {Name: "part/inner/x", Content: "deep\n"},
	}), ""))
	id, err := n.pull(reg.ref("volume"))
	if err != nil {
		n.t.Fatal(err)
	}
	return id, n.imageStatus(id).GetRepoDigests()[0]
}

// imageMount mounts a directory of an image, "" for all of it.
func imageMount(id, sub, inside string, mods ...func(*criapi.Mount)) func(*criapi.ContainerConfig) {
	return mount("", inside, append(mods, func(m *criapi.Mount) {
		m.Image, m.ImageSubPath, m.Readonly = &criapi.ImageSpec{Image: id}, sub, true
	})...)
}

// usernsBase is the uid on the node of root in the user namespaces of these tests.
const usernsBase = 500000

func usernsOptions() *criapi.UserNamespace {
	mapping := []*criapi.IDMapping{{HostId: usernsBase, Length: 65536}}
	return &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: mapping, Gids: mapping}
}

func usernsPod(c *criapi.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = usernsOptions()
}

func usernsContainer(c *criapi.ContainerConfig) {
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = usernsOptions()
}

func TestImageVolume(t *testing.T) {
	n := start(t)
	id, ref := n.pullVolume(newRegistry(t))
	p := n.runPod("volume")
	c := p.run("main", "", idle, imageMount(id, "", "/models"), imageMount(ref, "part/inner", "/deep/part"), imageMount(imageName, "etc", "/own"),
		imageMount(id, "", "/noexec", func(m *criapi.Mount) { m.MountOptions = []string{"noexec"} }),
		imageMount(id, "", "/writable", func(m *criapi.Mount) { m.Readonly = false }))
	if got := c.exec("cat /models/data /deep/part/x; /models/tool; ls /models | tr '\\n' ' '; grep -c nobody /own/passwd"); got != "weights\ndeep\nworks\ndata part tool 1" {
		t.Errorf("the volumes show %q", got)
	}
	for _, path := range []string{"/models/new", "/models/data", "/deep/part/x", "/writable/data"} {
		if r, err := c.tryExec(5, "echo > "+path); err != nil || !strings.Contains(string(r.Stderr), "ead-only") {
			t.Errorf("a write to %s: %d %q %v", path, r.GetExitCode(), r.GetStderr(), err)
		}
	}
	if r, err := c.tryExec(5, "/noexec/tool"); err != nil || r.ExitCode == 0 {
		t.Errorf("a program on a mount with noexec: %v %v", r, err)
	}
	for i, want := range []string{ref, ref, imageName} {
		if got := c.status().Mounts[i].Image.GetImageRef(); got != want && (i < 2 || got == "") {
			t.Errorf("status: mounts[%d].image.image_ref is %q, want %q", i, got, want)
		}
	}
	// An image that is removed lives on in the volume, and goes with the container.
	n.removeImage(id)
	before := n.stored()
	if got := c.exec("cat /models/data"); got != "weights" {
		t.Errorf("after the image's removal the volume shows %q", got)
	}
	c.remove()
	until(t, "the image is still there", func() bool { return len(n.stored()) < len(before) })
}

// An image may have nothing but its configuration: its volume is an empty directory.
func TestImageVolumeWithoutFiles(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	reg.push("empty", daemon.NewImage(daemon.Layer(nil), ""))
	id, err := n.pull(reg.ref("empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.removeImage(id)
	c := n.runPod("empty").run("main", "", idle, imageMount(id, "", "/empty"))
	if got := c.exec("ls -A /empty | wc -l; stat -c %a /empty; touch /empty/x 2>&1 | grep -o 'Read-only file system'"); got != "0\n755\nRead-only file system" {
		t.Errorf("the container saw %q", got)
	}
}

func TestImageVolumeInUserNamespace(t *testing.T) {
	n := start(t)
	id, _ := n.pullVolume(newRegistry(t))
	p := n.runPod("volume", usernsPod)
	mapping := usernsOptions().Uids
	c := p.run("main", "", idle, usernsContainer, imageMount(id, "", "/plain"),
		imageMount(id, "part", "/mapped", func(m *criapi.Mount) { m.UidMappings, m.GidMappings = mapping, mapping }))
	if got := c.exec("cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g /plain /plain/data /mapped /mapped/inner/x | sort -u; cat /mapped/inner/x"); got != "0 500000 65536\n0:0\ndeep" {
		t.Errorf("in the container: %q", got)
	}
	if r, err := c.tryExec(5, "mount -o remount,rw,bind /plain; echo > /plain/data"); err != nil || r.ExitCode == 0 {
		t.Errorf("root of the user namespace writes to the image: %v %v", r, err)
	}
}

// TestImageVolumeAfterRestart: a daemon that comes back lends again what a container has.
func TestImageVolumeAfterRestart(t *testing.T) {
	n := start(t)
	id, _ := n.pullVolume(newRegistry(t))
	p := n.runPod("volume")
	running := p.run("running", "", idle, imageMount(id, "", "/models"))
	created := p.create("created", "cat /models/x; sleep 1000", imageMount(id, "part/inner", "/models"))
	n.removeImage(id)
	before := n.stored()
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if got := running.exec("cat /models/data"); got != "weights" {
		t.Errorf("after a restart the volume shows %q", got)
	}
	if err := created.start(); err != nil {
		t.Fatal(err)
	}
	created.says("deep")
	if got := created.status().Mounts[0].Image.GetImageRef(); !strings.Contains(got, "@sha256:") {
		t.Errorf("after a restart status says %q for the volume's image", got)
	}
	running.remove()
	if got := created.exec("cat /models/x"); got != "deep" {
		t.Errorf("with the image returned by one container the other reads %q", got)
	}
	created.remove()
	until(t, "the image is still there", func() bool { return len(n.stored()) < len(before) })
}

func TestImageVolumeMountFailed(t *testing.T) {
	n := start(t)
	id, _ := n.pullVolume(newRegistry(t))
	p := n.runPod("volume")
	for _, c := range []struct {
		name string
		mod  func(*criapi.ContainerConfig)
		code codes.Code
		says []string
	}{
		{"an image that is not there", imageMount("localhost/none:1", "", "/v"), codes.NotFound, []string{"mounts[0].image", "localhost/none:1", "pull it first"}},
		{"a sub path that is not there", imageMount(id, "part/none", "/v"), codes.InvalidArgument, []string{"mounts[0].image_sub_path", "part/none", "does not exist"}},
		{"a sub path that is a file", imageMount(id, "data", "/v"), codes.InvalidArgument, []string{"mounts[0].image_sub_path", "data", "is not a directory"}},
		{"a sub path that climbs", imageMount(id, "../etc", "/v"), codes.InvalidArgument, []string{"mounts[0].image_sub_path", ".."}},
		{"a host path too", imageMount(id, "", "/v", func(m *criapi.Mount) { m.HostPath = "/etc" }), codes.InvalidArgument, []string{"mounts[0].host_path"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			q := &pod{n: n, id: p.id, config: p.config}
			n.unchanged(func() {
				_, err := q.tryCreate(containerConfig("bad", "true", c.mod))
				mustFail(t, err, c.code, append(c.says, "ImageVolumeMountFailed: ")...)
			})
		})
	}
	// What failed holds nothing.
	before := n.stored()
	n.removeImage(id)
	until(t, "the image is still there", func() bool { return len(n.stored()) < len(before) })
}

// TestMountPropagationAndReadOnly: mounts that come later, and those below a volume.
func TestMountPropagationAndReadOnly(t *testing.T) {
	n := start(t)
	dir := filepath.Join(n.Dir, "tree")
	below := filepath.Join(dir, "below")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "mount", "--bind", dir, dir)
	mustRun(t, "mount", "--make-private", dir) // leaves the group of /
	mustRun(t, "mount", "--make-shared", dir)
	mustRun(t, "mount", "-t", "tmpfs", "none", below)
	link := filepath.Join(n.Dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.removeAll()
		mustRun(t, "umount", "-R", dir)
		_ = os.Remove(link)
		_ = os.RemoveAll(dir)
	})
	p := n.runPod("tree", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	ro := func(recursive bool) func(*criapi.Mount) {
		return func(m *criapi.Mount) { m.Readonly, m.RecursiveReadOnly = true, recursive }
	}
	propagates := func(how criapi.MountPropagation) func(*criapi.Mount) {
		return func(m *criapi.Mount) { m.Propagation = how }
	}
	c := p.run("main", "", idle, func(c *criapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = true },
		mount(dir, "/ro", ro(false)), mount(dir, "/rro", ro(true)), mount(link, "/link"), mount(dir, "/private"),
		mount(dir, "/slave", propagates(criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER)), mount(dir, "/shared", propagates(criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL)),
		mount(dir, "/options", func(m *criapi.Mount) { m.MountOptions = []string{"noexec", "nosuid", "nodev"} }))
	c.exec("echo x > /link/file && test -f /ro/file && echo x > /ro/below/file")
	for _, path := range []string{"/ro/file", "/rro/file", "/rro/below/file"} {
		if r, err := c.tryExec(5, "echo > "+path); err != nil || !strings.Contains(string(r.Stderr), "ead-only") {
			t.Errorf("a write to %s: %d %q %v", path, r.GetExitCode(), r.GetStderr(), err)
		}
	}
	if got := c.exec("grep ' /options ' /proc/self/mountinfo"); !strings.Contains(got, "nosuid,nodev,noexec") {
		t.Errorf("/options is mounted as %q", got)
	}
	for _, d := range []string{"late", "inside"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "mount", "-t", "tmpfs", "late", filepath.Join(dir, "late"))
	if got := c.exec("for d in private slave shared; do grep -c \" /$d/late \" /proc/self/mountinfo; done | tr '\\n' ' '; true"); got != "0 1 1" {
		t.Errorf("a mount of the node shows in private, slave, shared: %s", got)
	}
	c.exec("mount -t tmpfs inside /shared/inside; mount -t tmpfs inside /slave/inside")
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Count(string(b), " "+dir+"/inside ") != 1 {
		t.Errorf("the mount of the container at /shared/inside shows %d times on the node: %v", strings.Count(string(b), " "+dir+"/inside "), err)
	}
}

// mustRun runs a command of the node.
func mustRun(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}
