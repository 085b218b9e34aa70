package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/checkpoint"
	"github.com/cri-mini/cri-mini/runtime/host"
)

// descriptorsFile holds what a container's standard streams were, beside criu's images; runc has it too.
const descriptorsFile = "descriptors.json"

const dumpLog = "dump.log"

// Checkpoint saves a running container with criu; then it is deleted, unless it shall run on. spec is what it was made
// of.
func (c *Command) Checkpoint(ctx context.Context, id string, spec *specs.Spec, o CriuOptions) error {
	ct, err := c.open(id)
	if err != nil {
		return err
	}
	defer ct.close()
	n, err := ct.notes()
	if err != nil {
		return err
	}
	if s := ct.status(n); s != string(specs.StateRunning) {
		return statusError(fmt.Sprintf("checkpoint container %s: Container cannot be checkpointed in %s state", id, s))
	}
	if err := ct.dump(n, spec, &o); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	if o.LeaveRunning || o.PreDump {
		return nil
	}
	return ct.remove(ctx)
}

// dump has criu write its images.
func (ct *commandContainer) dump(n notes, spec *specs.Spec, o *CriuOptions) error {
	version, err := criuVersion()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.ImagePath, 0o700); err != nil {
		return fmt.Errorf("--image-path: %w", err)
	}
	opts, done, err := o.common(spec, dumpLog)
	if err != nil {
		return err
	}
	defer done()
	opts.Root, opts.Pid, opts.LeaveRunning, opts.LinkRemap = ref(n.Rootfs), ref(int32(n.proc.PID)), ref(o.LeaveRunning), ref(o.LinkRemap)
	opts.TcpSkipInFlight = ref(o.TCPSkipInFlight)
	if opts.External, err = externalNamespaces(spec); err != nil {
		return err
	}
	if n.Cgroup != "" {
		if opts.FreezeCgroup, err = ct.freezer(n, version); err != nil {
			return err
		}
	}
	if err := o.dumpOptions(opts, version); err != nil {
		return err
	}
	t := rpc.CriuReqType_PRE_DUMP
	if !o.PreDump {
		t = rpc.CriuReqType_DUMP
		if err := ct.describe(n, spec, o, opts); err != nil {
			return err
		}
	}
	call := checkpoint.Call{Request: &rpc.CriuReq{Type: &t, Opts: opts}, Step: o.dumpStep}
	if _, err := call.Run(); err != nil {
		return criuFailed(err, version, o.logDir(), dumpLog)
	}
	return nil
}

// dumpOptions are those of a dump that need something of criu or of the caller.
func (o *CriuOptions) dumpOptions(opts *rpc.CriuOpts, version int) error {
	if o.PageServer != "" {
		opts.Ps = &rpc.CriuPageServerInfo{Address: ref(o.PageServer), Port: ref(o.PageServerPort)}
	}
	if o.ParentPath != "" {
		opts.ParentImg, opts.TrackMem = ref(o.ParentPath), ref(true)
	}
	if o.PreDump {
		if err := criuFeature("MemTrack", rpc.CriuFeatures{MemTrack: ref(true)}, (*rpc.CriuFeatures).GetMemTrack); err != nil {
			return err
		}
	}
	if !o.LazyPages {
		return nil
	}
	if err := criuFeature("LazyPages", rpc.CriuFeatures{LazyPages: ref(true)}, (*rpc.CriuFeatures).GetLazyPages); err != nil {
		return err
	}
	if o.StatusFD < 0 {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(o.StatusFD), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("invalid --status-fd argument %d: %w", o.StatusFD, err)
	}
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return fmt.Errorf("invalid --status-fd argument %d: not writable", o.StatusFD)
	}
	if version < criuNotifies {
		opts.StatusFd = ref(int32(o.StatusFD))
	}
	return nil
}

// dumpStep tells whoever waits that pages can be asked for.
func (o *CriuOptions) dumpStep(script string, _, fd int) error {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	if script == "status-ready" && o.StatusFD >= 0 {
		_, _ = unix.Write(o.StatusFD, []byte{0})
		_ = unix.Close(o.StatusFD)
		o.StatusFD = -1
	}
	return nil
}

// freezer is the group that criu freezes so that nothing changes meanwhile.
func (ct *commandContainer) freezer(n notes, version int) (*string, error) {
	tree, err := ct.cmd.cgroups()
	if err != nil {
		return nil, err
	}
	dir, v2 := tree.FreezerDir(n.Cgroup)
	if dir == "" || v2 && version < criuFreezeV2 {
		return nil, nil
	}
	return &dir, nil
}

// describe tells criu of the mounts that are not the container's own, and writes down what its standard streams are.
func (ct *commandContainer) describe(n notes, spec *specs.Spec, o *CriuOptions, opts *rpc.CriuOpts) error {
	points, err := mountPoints(n.proc.PID)
	if err != nil {
		return err
	}
	e := externalsOf(spec, n.Bundle, n.Rootfs, n.Cgroup)
	for _, m := range points {
		point, source := m.point, e.source(m.point)
		if source == "/dev/null" && m.root != "/null" {
			continue // a directory is masked by a tmpfs, which is the container's own
		}
		if source != "" {
			opts.ExtMnt = append(opts.ExtMnt, &rpc.ExtMountMap{Key: ref(point), Val: ref(point)})
		}
	}
	var streams []string
	for fd := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.proc.PID, fd))
		if errors.Is(err, os.ErrNotExist) {
			to, err = "", nil
		}
		if err != nil {
			return fmt.Errorf("look at standard streams: %w", err)
		}
		streams = append(streams, to)
	}
	text, err := json.Marshal(streams)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.ImagePath, descriptorsFile), text, 0o600)
}

// mountPoint is a mount of a process, as it sees it: where it is, and which directory of its file system is there.
type mountPoint struct{ point, root string }

func mountPoints(pid int) ([]mountPoint, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look at mounts: %w", err)
	}
	var points []mountPoint
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		points = append(points, mountPoint{point: host.UnescapeMount(f[4]), root: host.UnescapeMount(f[3])})
	}
	return points, nil
}

// externalKey is the name by which criu finds a namespace that the container joined by a path; runc has the same.
func externalKey(file string) string {
	return "extRoot" + strings.ToUpper(file[:1]) + file[1:] + "NS"
}

// outside are the namespaces that criu leaves alone when they were joined.
var outside = []struct {
	typ  specs.LinuxNamespaceType
	file string
}{{specs.NetworkNamespace, "net"}, {specs.PIDNamespace, "pid"}}

func namespacePath(spec *specs.Spec, t specs.LinuxNamespaceType) string {
	if spec.Linux != nil {
		for _, n := range spec.Linux.Namespaces {
			if n.Type == t {
				return n.Path
			}
		}
	}
	return ""
}

func externalNamespaces(spec *specs.Spec) ([]string, error) {
	var list []string
	for _, ns := range outside {
		path := namespacePath(spec, ns.typ)
		if path == "" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return nil, fmt.Errorf("%s namespace %s: %w", ns.file, path, err)
		}
		list = append(list, fmt.Sprintf("%s[%d]:%s", ns.file, st.Ino, externalKey(ns.file)))
	}
	return list, nil
}
