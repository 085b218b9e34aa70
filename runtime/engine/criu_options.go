package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/checkpoint"
)

// CriuOptions are what checkpoint and restore take. They are runc's, and mostly criu's own (criu(8)).
type CriuOptions struct {
	ImagePath, WorkPath, ParentPath                       string
	LeaveRunning, PreDump, LazyPages, AutoDedup           bool
	TCPEstablished, TCPSkipInFlight, ExtUnixSk, LinkRemap bool
	ShellJob, FileLocks                                   bool
	StatusFD                                              int // gets a zero byte when pages can be asked for; -1: none
	PageServer                                            string
	PageServerPort                                        int32
	CgroupsMode                                           string
	LSMProfile, LSMMountContext                           string
}

// The least versions of criu, as checkpoint.Version gives them.
const (
	criuRPC      = 30000 // its version can be asked for
	criuFreezeV2 = 31400
	criuNotifies = 31500 // "status-ready", external PID namespaces
	criuLSM      = 31600
	criuNoPrivs  = 31900 // keeps no_new_privs
)

// criuConfig is a file of options that criu reads over those of the request; a container may have its own by annotation.
const (
	criuConfig           = "/etc/criu/runc.conf"
	criuConfigAnnotation = "org.criu.config"
)

// criuVersion finds out whether there is a criu that works here.
func criuVersion() (int, error) {
	v, err := checkpoint.Version()
	if err == nil && v < criuRPC {
		err = fmt.Errorf("criu version %d must be %d or higher", v, criuRPC)
	}
	if err != nil {
		return 0, fmt.Errorf("criu cannot be used on this machine (kernel %s): %w", kernelRelease(), err)
	}
	return v, nil
}

// criuFailed says who failed where: an old criu does not start on a new kernel, and its log tells only in its own terms.
func criuFailed(err error, version int, dir, log string) error {
	return fmt.Errorf("%w: criu %d.%d.%d on kernel %s: %s", err, version/10000, version/100%100, version%100, kernelRelease(), checkpoint.Quote(dir, log))
}

func kernelRelease() string {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	return unix.ByteSliceToString(uts.Release[:])
}

func ref[T any](v T) *T { return &v }

// common are the options that a dump and a restore have alike. The directories stay open for as long as the request.
func (o *CriuOptions) common(spec *specs.Spec, log string) (*rpc.CriuOpts, func(), error) {
	mode, err := cgroupsMode(o.CgroupsMode)
	if err != nil {
		return nil, nil, err
	}
	images, err := os.Open(o.ImagePath)
	if err != nil {
		return nil, nil, fmt.Errorf("--image-path: %w", err)
	}
	done := func() { images.Close() }
	opts := &rpc.CriuOpts{
		ImagesDirFd: ref(int32(images.Fd())), LogLevel: ref(int32(4)), LogFile: ref(log), NotifyScripts: ref(true), OrphanPtsMaster: ref(true),
		ManageCgroups: ref(true), ManageCgroupsMode: &mode, ShellJob: ref(o.ShellJob), TcpEstablished: ref(o.TCPEstablished),
		ExtUnixSk: ref(o.ExtUnixSk), FileLocks: ref(o.FileLocks), AutoDedup: ref(o.AutoDedup), LazyPages: ref(o.LazyPages),
		EmptyNs: ref(uint32(unix.CLONE_NEWNET)), // devices are those of whoever makes the network; --empty-ns says the same
	}
	if o.WorkPath != "" {
		if err := os.Mkdir(o.WorkPath, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			done()
			return nil, nil, fmt.Errorf("--work-path: %w", err)
		}
		work, err := os.Open(o.WorkPath)
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("--work-path: %w", err)
		}
		opts.WorkDirFd = ref(int32(work.Fd()))
		done = func() { images.Close(); work.Close() }
	}
	if file, ok := spec.Annotations[criuConfigAnnotation]; !ok {
		opts.ConfigFile = ref(criuConfig)
	} else if file != "" {
		opts.ConfigFile = ref(file)
	}
	return opts, done, nil
}

// logDir is where criu's log goes.
func (o *CriuOptions) logDir() string {
	if o.WorkPath != "" {
		return o.WorkPath
	}
	return o.ImagePath
}

func cgroupsMode(word string) (rpc.CriuCgMode, error) {
	modes := map[string]rpc.CriuCgMode{
		"": rpc.CriuCgMode_DEFAULT, "soft": rpc.CriuCgMode_SOFT, "full": rpc.CriuCgMode_FULL, "strict": rpc.CriuCgMode_STRICT, "ignore": rpc.CriuCgMode_IGNORE,
	}
	mode, ok := modes[word]
	if !ok {
		return 0, fmt.Errorf("--manage-cgroups-mode: invalid manage-cgroups-mode value %q; there are soft, full, strict and ignore", word)
	}
	return mode, nil
}

// criuFeature asks whether criu and the kernel have a feature.
func criuFeature(name string, ask rpc.CriuFeatures, has func(*rpc.CriuFeatures) bool) error {
	t := rpc.CriuReqType_FEATURE_CHECK
	resp, err := (&checkpoint.Call{Request: &rpc.CriuReq{Type: &t, Features: &ask}}).Run()
	if err == nil && !has(resp.GetFeatures()) {
		err = errors.New("criu is missing features: " + name)
	}
	return err
}

// externals are the mounts of a container that come from outside of it.
type externals struct {
	binds  []external
	inside map[string]bool   // mounts of file systems of its own
	files  map[string]string // masks and devices
	cgroup string            // where v1 hierarchies are bound
	group  string            // its cgroup
}

type external struct{ point, source string }

// externalsOf reads them from the specification. rootfs is needed to resolve links in mount points, as init did.
func externalsOf(spec *specs.Spec, bundle, rootfs, group string) *externals {
	e := &externals{inside: map[string]bool{}, files: map[string]string{}, group: group}
	for _, m := range spec.Mounts {
		point := resolveIn(rootfs, m.Destination)
		switch {
		case isBind(m):
			source := m.Source
			if !filepath.IsAbs(source) {
				source = filepath.Join(bundle, source)
			}
			e.binds = append(e.binds, external{point, source})
			delete(e.inside, point)
		case m.Type == "cgroup" && !hasNamespace(spec, specs.CgroupNamespace):
			e.cgroup = point
			fallthrough
		default:
			e.inside[point] = true
		}
	}
	if l := spec.Linux; l != nil {
		for _, p := range l.MaskedPaths {
			e.files[filepath.Clean(p)] = "/dev/null"
		}
		for _, d := range l.Devices {
			e.files[filepath.Clean(d.Path)] = d.Path
		}
	}
	if hasNamespace(spec, specs.UserNamespace) { // the host's nodes are bound
		for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
			e.files["/dev/"+name] = "/dev/" + name
		}
	}
	return e
}

// source gives the path on the host that a mount of the container comes from; "" for its own.
func (e *externals) source(point string) string {
	if e.inside[point] {
		return ""
	}
	for i := len(e.binds) - 1; i >= 0; i-- {
		if b := e.binds[i]; checkpoint.Below(point, b.point) {
			return filepath.Join(b.source, strings.TrimPrefix(point, b.point))
		}
	}
	if e.cgroup != "" && filepath.Dir(point) == e.cgroup {
		return filepath.Join("/sys/fs/cgroup", filepath.Base(point), e.group)
	}
	return e.files[point]
}

func isBind(m specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}

func hasNamespace(spec *specs.Spec, t specs.LinuxNamespaceType) bool {
	if spec.Linux == nil {
		return false
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Type == t {
			return true
		}
	}
	return false
}

// resolveIn follows the links of a path inside a root directory; what does not exist is taken as it is.
func resolveIn(root, path string) string {
	path = filepath.Join("/", path)
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return path
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return path
	}
	defer unix.Close(fd)
	base, err1 := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir))
	full, err2 := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err1 != nil || err2 != nil || !checkpoint.Below(full, base) {
		return path
	}
	return filepath.Join("/", strings.TrimPrefix(full, base))
}
