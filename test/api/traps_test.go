package api

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What others have paid for, and the test that is named after it:
//
//	a stream of an ExecSync is kept up to 16 MiB            TestTrapExecSyncCapsOutput
//	its timeout kills all that it forked, DeadlineExceeded  TestTrapExecTimeoutKillsAllItForked
//	a child in the background holds its pipe                TestTrapBackgroundChildHoldsTheExecPipe
//	log lines, a last one without its newline               TestTrapLogFormatAndLastLine
//	reopening a log loses nothing                           TestTrapReopenedLogLosesNothing
//	no space for the log                                    TestTrapLogWithoutSpace
//	OOMKilled in the first status after the end             TestTrapOOMKilledInTheFirstStatus
//	Stop, Remove and Status of what is unknown              TestTrapUnknownIDs
//	image_ref, Image.id and image_id are one                TestTrapImageIDsAreOne
//	removing one tag by id removes all                      TestTrapRemovingOneTagRemovesAll
//	a second StopPodSandbox is cheap                        TestTrapSecondStopPodSandbox
//	what was stopped is in no new pod's way                 TestTrapStoppedPodIsInNobodysWay
//	a volume's mounts and flags in a user namespace         TestTrapVolumeOfAUserNamespace
//	/run is full                                            TestTrapRunIsFull
//	a skip that looks like a pass                           TestTrapSkipIsAFailure (test/critest/run)
//
// And what was found by experiment, in the packages that the kernel's rule concerns:
//
//	layers: many, idmapped, an upper one that is written    TestOverlayWays, TestOverlayOfManyLayers (runtime/engine)
//	a limit of memory below 8 MB                            TestSmallestLimit (runtime/initc)
//	limits, signals and mask as they were, at exec          TestLimits, TestSignalsAreRestored, TestDescriptorsAtExec (runtime/initc)
//	memory is joined last                                   TestJoinFilesPutMemoryLast (runtime/cgroup)
//	the default filter's cheaper layout answers the same    TestSwitchAnswersAsOneFilter (runtime/seccomp)
//	ends of veths go together                               TestWaitGoneDeletesHeldVeth, TestShapedPodsGoTogether (netns)
//	127.0.0.1 and host ports, from here and from outside    TestHostPort, TestNeighbourCannotReachHostLoopback (netns)

// TestTrapLogWithoutSpace: neither the container nor the monitor minds, and the status tells what is missing.
func TestTrapLogWithoutSpace(t *testing.T) {
	n := start(t)
	dir := filepath.Join(shared.logs, "space")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "mount", "-t", "tmpfs", "-o", "size=64k", "space", dir)
	t.Cleanup(func() {
		n.removeAll()
		mustRun(t, "umount", dir)
	})
	p := n.runPod("space")
	c := p.run("main", "yes 0123456789abcdef | head -n 100000; exit 7")
	other := p.run("other", "", idle)
	st := c.ends()
	if st.ExitCode != 7 || !strings.Contains(st.Message, "bytes of its log were dropped: no space") {
		t.Errorf("the container ended with %d %q", st.ExitCode, st.Message)
	}
	for _, e := range entries(t, c.log) {
		if e.text != "0123456789abcdef" {
			t.Errorf("a torn line: %v", e)
		}
	}
	other.exec("true")
}

func TestTrapUnknownIDs(t *testing.T) {
	n := start(t)
	const id = "0123456789abcdef"
	_, stopPod := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: id})
	_, removePod := n.Runtime.RemovePodSandbox(n.ctx(), &criapi.RemovePodSandboxRequest{PodSandboxId: id})
	_, stop := n.Runtime.StopContainer(n.ctx(), &criapi.StopContainerRequest{ContainerId: id})
	_, remove := n.Runtime.RemoveContainer(n.ctx(), &criapi.RemoveContainerRequest{ContainerId: id})
	_, removeImage := n.Images.RemoveImage(n.ctx(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: "localhost/none:1"}})
	if err := errors.Join(stopPod, removePod, stop, remove, removeImage); err != nil {
		t.Errorf("what is gone already: %v", err)
	}
	_, err := n.Runtime.PodSandboxStatus(n.ctx(), &criapi.PodSandboxStatusRequest{PodSandboxId: id})
	mustFail(t, err, codes.NotFound, id)
	_, err = n.Runtime.ContainerStatus(n.ctx(), &criapi.ContainerStatusRequest{ContainerId: id})
	mustFail(t, err, codes.NotFound, id)
	if image := n.imageStatus("localhost/none:1"); image != nil {
		t.Errorf("an image that is not there: %v", image)
	}
}

func TestTrapRemovingOneTagRemovesAll(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	image := smallImage("tags", "")
	var id string
	for _, tag := range []string{"one", "two"} {
		reg.push(tag, image)
		var err error
		if id, err = n.pull(reg.ref(tag)); err != nil {
			t.Fatal(err)
		}
	}
	if tags := n.imageStatus(id).GetRepoTags(); len(tags) != 2 {
		t.Errorf("tags: %q", tags)
	}
	n.removeImage(id)
	for _, ref := range []string{id, reg.ref("one"), reg.ref("two")} {
		if got := n.imageStatus(ref); got != nil {
			t.Errorf("%s is still there: %v", ref, got)
		}
	}
}

// TestTrapRunIsFull: no new pods, said with words; what runs can be stopped and removed.
func TestTrapRunIsFull(t *testing.T) {
	n := start(t)
	p := n.runPod("full")
	c := p.run("main", "", idle)
	mount := filepath.Join(n.Run, "pods")
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Fatalf("%s is on no tmpfs: %#x %v", mount, st.Type, err)
	}
	if size := st.Blocks * uint64(st.Bsize); size > 256<<20 {
		t.Fatalf("the tmpfs of %s has %d bytes: a machine's own, which is not to be filled", mount, size)
	}
	hog := filepath.Join(n.Run, "hog")
	defer os.Remove(hog)
	f, err := os.Create(hog)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := bytes.Repeat([]byte{1}, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	_, err = n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: podConfig("late")})
	mustFail(t, err, codes.ResourceExhausted, "no space")
	if got := c.exec("echo runs on"); got != "runs on" {
		t.Errorf("an exec says %q", got)
	}
	c.stop(0)
	c.mustEnd(137, "Error")
	if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Errorf("StopPodSandbox: %v", err)
	}
	if _, err := n.Runtime.RemovePodSandbox(n.ctx(), &criapi.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Errorf("RemovePodSandbox: %v", err)
	}
	n.mustList(0, 0)
}

// TestTrapStoppedPodIsInNobodysWay: when StopPodSandbox has returned there is nothing that a new pod could meet: the same
// host port, host path and cgroup parent serve the next one at once.
func TestTrapStoppedPodIsInNobodysWay(t *testing.T) {
	n := start(t)
	port := func(c *criapi.PodSandboxConfig) {
		c.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 18097}}
	}
	for i := range 5 {
		p := n.runPod("same", port)
		c := p.run("main", "", idle)
		c.exec("true")
		if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Fatal(err)
		}
		for _, line := range n.Look() {
			kind, _, _ := strings.Cut(line, " ")
			switch {
			case kind == "run" && !strings.Contains(line, "/netns/"), kind == "state", kind == "link": // until its removal; the kernel takes links away in its own time
			case strings.Contains(line, p.id), strings.Contains(line, c.id), strings.Contains(line, "18097"), strings.Contains(line, "sleep 1000"):
				t.Errorf("stop %d leaves %s", i, line)
			}
		}
	}
	n.mustList(5, 5)
}

// TestTrapVolumeOfAUserNamespace: what root of a user namespace mounts in a volume stays out of the node, whose mount is
// shared, and the flags of the node's mount stay what they are.
func TestTrapVolumeOfAUserNamespace(t *testing.T) {
	n := start(t)
	dir := n.ownMount("volume")
	mustRun(t, "mount", "--make-shared", dir)
	mustRun(t, "mount", "-o", "remount,bind,nosuid,nodev,noexec", dir)
	admin := secure(func(s *criapi.LinuxContainerSecurityContext) {
		s.Capabilities = &criapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
		s.Seccomp, s.Apparmor = nil, unconfined
	})
	c := n.runPod("user", usernsPod).run("main", "", idle, usernsContainer, admin, mount(dir, "/volume", mapped, func(m *criapi.Mount) {
		m.Propagation = criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	}))
	c.exec("mount -t tmpfs inside /volume/below && touch /volume/below/inside")
	for _, flag := range []string{"suid", "dev", "exec"} {
		if r, err := c.tryExec(5, "mount -o remount,bind,"+flag+" /volume"); err != nil || r.ExitCode == 0 && !strings.Contains(c.exec("grep ' /volume ' /proc/self/mountinfo"), "no"+flag) {
			t.Errorf("root of the user namespace gives itself %s: %v", flag, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "below", "inside")); err == nil {
		t.Error("a mount of the container shows on the node")
	}
	mustRun(t, "mount", "-t", "tmpfs", "outside", filepath.Join(dir, "below"))
	if got := c.exec("grep -c ' /volume/below ' /proc/self/mountinfo"); got != "2" {
		t.Errorf("with one mount of each there are %s in the container", got)
	}
}
