package api

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hostile makes values that nobody in his senses sends. What could do harm on the machine that runs the test, even by
// design of the API, is not among the strings: no directory of the host to write to.
type hostile struct {
	*rand.Rand
	dir     string
	strings []string
}

func newHostile(t testing.TB, seed uint64) *hostile {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "odd")
	fifo, link, loop := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "loop")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{unix.Mkfifo(fifo, 0o600), os.Symlink(dir, link), os.Symlink(loop, loop)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("a", 300)
	return &hostile{rand.New(rand.NewPCG(seed, 0)), dir, []string{
		"", " ", ".", "..", "/", "//", "../../x", "/a/../b", "a\x00b", "\x00", "a\nb", "a=b", "a;b", "a:b", ":", "%s%n", "\u202e\U0001f600", "-1", "0", "-",
		"99999999999999999999", "0x10", "1e9", long, "/" + long, strings.Repeat("/a", 3000), strings.Repeat("x", 70000), strings.Repeat("../", 2000),
		dir, fifo, link, loop, link + "/fifo", "/dev/zero", "/dev/null", "/proc/self/fd/0", "/proc/1/root", "/no/such/file",
		"ALL", "all", "CAP_", "SIGKILL", "unconfined", "localhost/", "runtime/default", "0-4095", "4096", "memory.max", "cgroup.kill", "a.b.c",
		"net.ipv4.ip_forward", "kernel.shm_rmid_forced", "255.255.255.255", "::", "1.2.3.4/33", "fe80::1%eth0", imageName, "sha256:" + strings.Repeat("0", 64), "0:0", "nobody:nobody",
	}}
}

// spoil gives some fields of a message, at any depth, values of another world.
func (h *hostile) spoil(m protoreflect.Message, times int) {
	for range times {
		h.field(m, 0)
	}
}

func (h *hostile) field(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	if fields.Len() == 0 || depth > 6 {
		return
	}
	f := fields.Get(h.IntN(fields.Len()))
	switch {
	case h.IntN(20) == 0:
		m.Clear(f)
	case f.IsMap():
		for range h.IntN(3) + 1 {
			m.Mutable(f).Map().Set(h.scalar(f.MapKey()).MapKey(), h.scalar(f.MapValue()))
		}
	case f.IsList():
		h.list(f, m.Mutable(f).List(), depth)
	case f.Message() != nil:
		h.field(m.Mutable(f).Message(), depth+1)
	default:
		m.Set(f, h.scalar(f))
	}
}

func (h *hostile) list(f protoreflect.FieldDescriptor, list protoreflect.List, depth int) {
	n := h.IntN(3) + 1
	if h.IntN(30) == 0 {
		n = 600
	}
	for range n {
		if f.Message() == nil {
			list.Append(h.scalar(f))
			continue
		}
		e := list.NewElement()
		h.field(e.Message(), depth+1)
		h.field(e.Message(), depth+1)
		list.Append(e)
	}
}

var oddNumbers = []int64{0, 1, -1, 2, -2, 63, 1000, 1001, -1000, 65535, 65536, 1 << 20, math.MaxInt32, math.MinInt32, math.MaxUint32, 1 << 40, math.MaxInt64, math.MinInt64}

func (h *hostile) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	n := oddNumbers[h.IntN(len(oddNumbers))]
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(h.IntN(2) == 0)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(h.strings[h.IntN(len(h.strings))])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("\xff\x00" + h.strings[h.IntN(len(h.strings))])[h.IntN(3):])
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(h.IntN(8) - 2))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n))
	}
	return protoreflect.ValueOfInt64(n)
}

// tame takes back what would be obeyed to the harm of this machine: files and directories made on its disk.
func (h *hostile) tame(pod *criapi.PodSandboxConfig, c *criapi.ContainerConfig) {
	harmless := func(path string) bool {
		return !filepath.IsAbs(path) || strings.HasPrefix(path, h.dir) || strings.Contains(path, "..") || len(path) > 250 ||
			strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, shared.logs)
	}
	if !harmless(pod.LogDirectory) {
		pod.LogDirectory = h.dir
	}
	for _, m := range c.GetMounts() {
		if !harmless(m.HostPath) {
			m.HostPath = h.dir
		}
	}
}

// TestHostileRequests: whatever a field says, a request has an answer within its time, no panic and no daemon's end is
// behind it, and what was made can be removed.
func TestHostileRequests(t *testing.T) {
	rounds, seed := 120, uint64(1)
	if v, err := strconv.ParseUint(os.Getenv("HOSTILE_SEED"), 10, 64); err == nil {
		seed, rounds = v, 2500
	}
	n := start(t)
	h := newHostile(t, seed)
	pid := n.PID()
	tally := map[codes.Code]int{}
	for round := range rounds {
		ask := func(what string, m proto.Message, call func() error) bool {
			err := call()
			code := status.Code(err)
			tally[code]++
			if code == codes.Internal || code == codes.DeadlineExceeded || code == codes.Unavailable {
				t.Errorf("round %d of seed %d: %s: %v\n%.3000s", round, seed, what, err, prototext.Format(m))
			}
			return err == nil
		}
		h.round(n, ask)
		if t.Failed() {
			break
		}
	}
	if n.PID() != pid {
		t.Error("the daemon is another one")
	}
	t.Logf("%d rounds: %v", rounds, tally)
}

// round is one pod's life.
func (h *hostile) round(n *node, ask func(what string, m proto.Message, call func() error) bool) {
	pod, ctr := podConfig("hostile"), containerConfig("hostile", "exec sleep 1000")
	switch h.IntN(3) {
	case 0:
		h.spoil(pod.ProtoReflect(), h.IntN(3)+1)
	case 1:
		h.spoil(ctr.ProtoReflect(), h.IntN(3)+1)
	default:
		h.spoil(pod.Linux.ProtoReflect(), 1)
		h.spoil(ctr.ProtoReflect(), h.IntN(2)+1)
	}
	h.tame(pod, ctr)
	run := &criapi.RunPodSandboxRequest{Config: pod}
	ran := ask("RunPodSandbox", run, func() error { _, err := n.Runtime.RunPodSandbox(n.ctx(), run); return err })
	if !ran {
		pod = podConfig("hostile")
		run = &criapi.RunPodSandboxRequest{Config: pod}
	}
	r, err := n.Runtime.RunPodSandbox(n.ctx(), run)
	if err != nil {
		n.t.Errorf("RunPodSandbox: %v", err)
		return
	}
	defer func() {
		if _, err := n.Runtime.RemovePodSandbox(n.ctx(), &criapi.RemovePodSandboxRequest{PodSandboxId: r.PodSandboxId}); err != nil {
			n.t.Errorf("RemovePodSandbox: %v\n%.3000s", err, prototext.Format(run))
		}
	}()
	create := &criapi.CreateContainerRequest{PodSandboxId: r.PodSandboxId, Config: ctr, SandboxConfig: pod}
	var id string
	if !ask("CreateContainer", create, func() error {
		c, err := n.Runtime.CreateContainer(n.ctx(), create)
		id = c.GetContainerId()
		return err
	}) {
		create.Config = containerConfig("hostile", "exec sleep 1000")
		if !ask("CreateContainer", create, func() error {
			c, err := n.Runtime.CreateContainer(n.ctx(), create)
			id = c.GetContainerId()
			return err
		}) {
			return
		}
	}
	started := ask("StartContainer", create, func() error {
		_, err := n.Runtime.StartContainer(n.ctx(), &criapi.StartContainerRequest{ContainerId: id})
		return err
	})
	h.touch(n, id, r.PodSandboxId, started, ask)
	ask("StopContainer", create, func() error {
		_, err := n.Runtime.StopContainer(n.ctx(), &criapi.StopContainerRequest{ContainerId: id, Timeout: []int64{-1, 0, math.MinInt64}[h.IntN(3)]})
		return err
	})
}

// touch makes requests about a container that is there.
func (h *hostile) touch(n *node, id, pod string, started bool, ask func(what string, m proto.Message, call func() error) bool) {
	ctx := n.ctx()
	update := &criapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &criapi.LinuxContainerResources{}}
	h.spoil(update.Linux.ProtoReflect(), h.IntN(3)+1)
	ask("UpdateContainerResources", update, func() error { _, err := n.Runtime.UpdateContainerResources(ctx, update); return err })
	whole := &criapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod}
	h.spoil(whole.ProtoReflect(), 2)
	whole.PodSandboxId = pod
	ask("UpdatePodSandboxResources", whole, func() error { _, err := n.Runtime.UpdatePodSandboxResources(ctx, whole); return err })
	exec := &criapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}}
	if h.IntN(3) == 0 {
		h.spoil(exec.ProtoReflect(), 1)
		exec.ContainerId = id
		exec.Timeout = []int64{0, -1, 1 << 40, math.MaxInt64, math.MinInt64}[h.IntN(5)]
	}
	ask("ExecSync", exec, func() error { _, err := n.Runtime.ExecSync(ctx, exec); return err })
	stream := &criapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true}
	h.spoil(stream.ProtoReflect(), 1)
	ask("Exec", stream, func() error { _, err := n.Runtime.Exec(ctx, stream); return err })
	forward := &criapi.PortForwardRequest{PodSandboxId: pod}
	h.spoil(forward.ProtoReflect(), 1)
	ask("PortForward", forward, func() error { _, err := n.Runtime.PortForward(ctx, forward); return err })
	status := &criapi.ContainerStatusRequest{ContainerId: id, Verbose: true}
	ask("ContainerStatus", status, func() error { _, err := n.Runtime.ContainerStatus(ctx, status); return err })
	list := &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{}}
	h.spoil(list.ProtoReflect(), 2)
	ask("ListContainers", list, func() error { _, err := n.Runtime.ListContainers(ctx, list); return err })
	stats := &criapi.ContainerStatsRequest{ContainerId: id}
	ask("ContainerStats", stats, func() error { _, err := n.Runtime.ContainerStats(ctx, stats); return err })
	podStats := &criapi.PodSandboxStatsRequest{PodSandboxId: pod}
	ask("PodSandboxStats", podStats, func() error { _, err := n.Runtime.PodSandboxStats(ctx, podStats); return err })
	image := &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{}}
	h.spoil(image.ProtoReflect(), 2)
	ask("ImageStatus", image, func() error { _, err := n.Images.ImageStatus(ctx, image); return err })
	cidr := &criapi.UpdateRuntimeConfigRequest{RuntimeConfig: &criapi.RuntimeConfig{NetworkConfig: &criapi.NetworkConfig{PodCidr: h.strings[h.IntN(len(h.strings))]}}}
	ask("UpdateRuntimeConfig", cidr, func() error { _, err := n.Runtime.UpdateRuntimeConfig(ctx, cidr); return err })
	if started && h.IntN(4) == 0 {
		ask("ReopenContainerLog", status, func() error {
			_, err := n.Runtime.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: id})
			return err
		})
	}
}
