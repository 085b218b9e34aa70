package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/checkpoint"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

const restoreLog = "restore.log"

// RestoreRequest describes a container to be made of a checkpoint.
type RestoreRequest struct {
	ID     string
	Bundle string // absolute
	Spec   *specs.Spec
	Config []byte // the text of Spec
	Cgroup string // path within each hierarchy; "" for none
	CriuOptions
	// Console gets the terminal's master, which is the receiver's own, unless ConsoleSocket does. May be nil.
	Console       func(master *os.File) error
	ConsoleSocket string
	Prepare       func(dir string) error // as in CommandRequest
}

// restoring is a restore under way.
type restoring struct {
	*commandContainer
	req     *RestoreRequest
	version int // of criu
	notes   notes
	images  *checkpoint.Images
	sources map[string]string // of external mounts, by their points
	opts    *rpc.CriuOpts
	files   []*os.File // for the worker, from descriptor 4 on
	p       *Process
}

// Restore makes a container with its processes as they were at the checkpoint; they run when it returns. What the
// images ask for beyond the specification is an error before criu runs. On an error nothing is left.
func (c *Command) Restore(ctx context.Context, req RestoreRequest) (*Process, error) {
	version, err := criuVersion()
	if err != nil {
		return nil, err
	}
	ct, err := c.make(req.ID)
	if err != nil {
		return nil, err
	}
	defer ct.close()
	r := &restoring{commandContainer: ct, req: &req, version: version}
	if err = r.run(ctx); err == nil {
		return r.p, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	err = errors.Join(err, ct.remove(undo))
	if r.p != nil {
		r.p.reap()
	}
	return nil, err
}

func (r *restoring) run(ctx context.Context) (err error) {
	dir := r.cmd.dir(r.id)
	if r.req.Prepare != nil {
		if err := r.req.Prepare(dir); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), r.req.Config, 0o600); err != nil {
		return fmt.Errorf("keep config.json: %w", err)
	}
	n := noteOf(r.req.Spec, r.req.Bundle, r.req.Cgroup)
	n.Gate, n.Exec = -1, 0 // there is no plan: its processes are programs from the first moment on
	r.notes = notes{containerNote: n}
	if err := r.writeNote(n); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if err := r.makeGroup(ctx); err != nil {
		return err
	}
	defer func() {
		for _, f := range r.files {
			f.Close()
		}
	}()
	if err := r.inPrivate(func(root string) error { return r.call(ctx, root) }); err != nil {
		return err
	}
	if r.p == nil {
		return errors.New("criu has not told which process it restored")
	}
	return r.writeProgress()
}

// check holds the images against what config.json grants.
func (r *restoring) check() (err error) {
	if r.images, err = checkpoint.Read(r.req.ImagePath); err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	g := grantOf(r.req.Spec, &r.req.CriuOptions)
	lost := g.NoNewPrivs && r.version < criuNoPrivs
	g.NoNewPrivs = g.NoNewPrivs && !lost
	g.Sources = externalsOf(r.req.Spec, r.req.Bundle, r.notes.Rootfs, r.req.Cgroup).source
	if r.sources, err = r.images.Check(g); err != nil {
		return fmt.Errorf("the checkpoint asks for more than config.json grants: %w", err)
	}
	if lost {
		r.cmd.warn("restore container %s: process.noNewPrivileges: this criu does not keep it; 3.19 does", r.id)
	}
	return nil
}

func (r *restoring) makeGroup(ctx context.Context) error {
	if r.req.Cgroup == "" {
		return nil
	}
	tree, err := r.cmd.cgroups()
	if err != nil {
		return err
	}
	if pids, err := tree.Procs(r.req.Cgroup); tree.Exists(r.req.Cgroup) && (err != nil || len(pids) > 0) {
		return errors.Join(fmt.Errorf("linux.cgroupsPath: the cgroup %s has processes already: %v", r.req.Cgroup, pids), err)
	}
	if err := r.Intend(plan.Object{Kind: plan.Cgroup, Name: r.req.Cgroup}); err != nil {
		return err
	}
	var limits *specs.LinuxResources
	if r.req.Spec.Linux != nil {
		limits = r.req.Spec.Linux.Resources
	}
	return tree.Create(ctx, r.req.Cgroup, limits)
}

// options are those that only a restore has.
func (r *restoring) options() error {
	o := r.opts
	o.EvasiveDevices, o.RstSibling = ref(true), ref(true)
	for _, want := range []struct {
		option, value string
		field         **string
	}{{"--lsm-profile", r.req.LSMProfile, &o.LsmProfile}, {"--lsm-mount-context", r.req.LSMMountContext, &o.LsmMountContext}} {
		if want.value == "" {
			continue
		}
		if r.version < criuLSM {
			return fmt.Errorf("%s requires at least CRIU 3.16", want.option)
		}
		*want.field = ref(want.value)
	}
	for key, source := range r.sources {
		o.ExtMnt = append(o.ExtMnt, &rpc.ExtMountMap{Key: ref(key), Val: ref(source)})
	}
	if err := r.joinNamespaces(); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(r.req.ImagePath, descriptorsFile))
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	var streams []string
	if err := json.Unmarshal(text, &streams); err != nil {
		return fmt.Errorf("%s: %w", descriptorsFile, err)
	}
	for fd, to := range streams {
		// Ours are put in the place of pipes; one that was two streams is one again.
		if fd < 3 && strings.HasPrefix(to, "pipe:") && !slices.Contains(streams[:fd], to) {
			o.InheritFd = append(o.InheritFd, &rpc.InheritFd{Key: ref(to), Fd: ref(int32(fd))})
		}
	}
	return nil
}

// joinNamespaces hands over those that are there already.
func (r *restoring) joinNamespaces() error {
	for _, ns := range outside {
		path := namespacePath(r.req.Spec, ns.typ)
		if path == "" {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("%s namespace: %w", ns.file, err)
		}
		r.opts.InheritFd = append(r.opts.InheritFd, &rpc.InheritFd{Key: ref(externalKey(ns.file)), Fd: ref(int32(4 + len(r.files)))})
		r.files = append(r.files, f)
	}
	for _, ns := range []struct {
		typ  specs.LinuxNamespaceType
		file string
	}{{specs.IPCNamespace, "ipc"}, {specs.UTSNamespace, "uts"}, {specs.UserNamespace, "user"}, {specs.MountNamespace, "mnt"}} {
		if path := namespacePath(r.req.Spec, ns.typ); path != "" {
			r.opts.JoinNs = append(r.opts.JoinNs, &rpc.JoinNamespace{Ns: ref(ns.file), NsFile: ref(path)})
		}
	}
	if namespacePath(r.req.Spec, specs.CgroupNamespace) != "" {
		return errors.New("linux.namespaces: criu cannot restore into a cgroup namespace that is there already")
	}
	return nil
}

// call has criu restore.
func (r *restoring) call(ctx context.Context, root string) (err error) {
	// Opened here, the directories are those of the namespace that criu is in: it mounts in them.
	var done func()
	if r.opts, done, err = r.req.common(r.req.Spec, restoreLog); err != nil {
		return err
	}
	defer done()
	if err := r.options(); err != nil {
		return err
	}
	r.opts.Root = ref(root)
	t := rpc.CriuReqType_RESTORE
	call := checkpoint.Call{
		Request: &rpc.CriuReq{Type: &t, Opts: r.opts},
		Inherit: [3]*os.File{os.Stdin, os.Stdout, os.Stderr},
		Files:   r.files,
		Started: r.joinGroup,
		Step:    func(script string, pid, fd int) error { return r.step(ctx, script, pid, fd) },
	}
	if _, err := call.Run(); err != nil {
		return criuFailed(err, r.version, r.req.logDir(), restoreLog)
	}
	return nil
}

// joinGroup brings the worker into the container's cgroup: what it restores begins there.
func (r *restoring) joinGroup(pid int) error {
	if r.req.Cgroup == "" {
		return nil
	}
	tree, err := r.cmd.cgroups()
	if err != nil {
		return err
	}
	if err := tree.Enter(r.req.Cgroup, pid); err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return fmt.Errorf("look at the cgroup of criu: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(f[1], ",") {
			r.opts.CgRoot = append(r.opts.CgRoot, &rpc.CgroupRoot{Ctrl: ref(controller), Path: ref(f[2])})
		}
	}
	return nil
}

func (r *restoring) step(ctx context.Context, script string, pid, fd int) error {
	switch script {
	case "setup-namespaces":
		r.notes.proc.PID = pid
		if err := r.loopbackUp(pid); err != nil {
			return err
		}
		if h := r.req.Spec.Hooks; h != nil {
			for kind, hooks := range map[string][]specs.Hook{"prestart": h.Prestart, "createRuntime": h.CreateRuntime} {
				if err := r.runHooks(ctx, kind, r.notes, hooks, specs.StateCreating); err != nil {
					return err
				}
			}
		}
	case "post-restore": // nothing of it runs yet
		if err := r.sealRoot(pid); err != nil {
			return err
		}
		pidfd, err := linux.PidfdOpen(pid)
		if err != nil {
			return err
		}
		r.p = &Process{PID: pid, child: spawned{pid: pid, startTime: linux.StartTime(pid), pidfd: pidfd}}
		return r.Note(NoteProcess, r.id, r.p.note())
	case "orphan-pts-master":
		if fd < 0 {
			return errors.New("criu has sent no terminal")
		}
		if r.req.ConsoleSocket != "" {
			defer unix.Close(fd)
			return sendFD(ctx, r.req.ConsoleSocket, "terminal", fd)
		}
		if r.req.Console != nil {
			_ = unix.SetNonblock(fd, true)
			return r.req.Console(os.NewFile(uintptr(fd), "terminal"))
		}
	}
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	return nil
}

// writeProgress has the page say what init says at its end: the program runs.
func (r *restoring) writeProgress() error {
	var page [plan.ProgressAtErrno + 4]byte
	binary.NativeEndian.PutUint32(page[plan.ProgressAtMagic:], plan.ProgressMagic)
	if _, err := r.page.WriteAt(page[:], 0); err != nil {
		return fmt.Errorf("write progress page: %w", err)
	}
	return nil
}
