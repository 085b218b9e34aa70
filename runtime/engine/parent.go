package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// parent carries out one op of the parent side.
func (r *run) parent(ctx context.Context, op *plan.Op) error {
	switch op.Kind {
	case plan.CgroupCreate:
		return r.cgroupCreate(ctx, op)
	case plan.UnitStart:
		return r.unitStart(ctx, op)
	case plan.OpenFile:
		return r.open(op)
	case plan.Fifo:
		return r.fifo(op)
	case plan.NsCreate:
		t, err := newNSThread(op)
		if err == nil {
			r.threads = append(r.threads, t)
		}
		return err
	case plan.NsPin:
		return r.pin(op)
	case plan.MountPrivate:
		return r.mountPrivate(op)
	case plan.OpenTree:
		return r.openTree(op)
	case plan.RootfsOverlay:
		fd, err := makeOverlay(op, r.slot(op.Slot[1]))
		r.fill(op.Slot[0], fd)
		return err
	case plan.RootfsHost:
		return r.rootfsHost(op)
	case plan.StateFile:
		return r.stateFile(op)
	case plan.Clone:
		return r.clone(ctx, op)
	case plan.IDMap:
		return writeIDMaps(r.pid(), op)
	case plan.MapNS:
		return r.mapNS(op)
	case plan.Hook:
		return r.hook(ctx, op)
	case plan.NetDevice:
		return moveDevice(r.pid(), op.Str[0], op.Str[1])
	case plan.CopyUp:
		fd, err := copyUp(op, r.slot(op.Slot[1]), r.pid())
		r.fill(op.Slot[0], fd)
		return err
	case plan.Resctrl:
		return r.resctrl(op)
	case plan.SendFD:
		return r.sendFD(ctx, op)
	}
	return fmt.Errorf("the parent side cannot do %s", op.Kind)
}

func (r *run) slot(s plan.Slot) int {
	if s < 0 || int(s) >= len(r.fds) {
		return -1
	}
	return r.fds[s]
}

func (r *run) fill(s plan.Slot, fd int) {
	if r.fds[s] >= 0 {
		_ = unix.Close(r.fds[s])
	}
	r.fds[s] = fd
}

// in runs f where paths of the given namespace are looked up.
func (r *run) in(where uint64, f func() error) error {
	switch where {
	case plan.InPrivate:
		if r.private == nil {
			return errors.New("there is no private mount namespace here")
		}
		return r.private.do(f)
	case plan.InContainer:
		return inMountNS(r.pid(), f)
	}
	return f()
}

func (r *run) open(op *plan.Op) error {
	path, flags := op.Str[0], int(op.Num[0])|unix.O_CLOEXEC|unix.O_NOCTTY
	if !strings.Contains(path, "/") {
		fd, ok := r.given[path]
		if !ok {
			return fmt.Errorf("nobody gave a descriptor named %s", path)
		}
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			r.fill(op.Slot[0], fd)
		}
		return err
	}
	return r.in(op.Num[1], func() error {
		fd, err := unix.Open(path, flags, 0)
		if err != nil {
			return err
		}
		r.fill(op.Slot[0], fd)
		if op.Str[1] == "" {
			return nil
		}
		return notOwn("/proc/self/fd/"+strconv.Itoa(fd), op.Str[1])
	})
}

func (r *run) fifo(op *plan.Op) error {
	path := op.Str[0]
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	// Without O_NONBLOCK an open for reading only would wait for a writer.
	fd, err := unix.Open(path, int(op.Num[2])|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	r.fill(op.Slot[0], fd)
	err = unix.Fchown(fd, int(op.Num[0]), int(op.Num[1]))
	if err != nil && os.Geteuid() == 0 { // a user's are his own, and so his container's
		return fmt.Errorf("change owner: %w", err)
	}
	return unix.SetNonblock(fd, op.Num[2]&plan.OpenNonblock != 0)
}

func (r *run) pin(op *plan.Op) error {
	typ, path := op.Str[0], op.Str[1]
	if err := r.intend(plan.Namespace, path, op.Num[0]); err != nil {
		return err
	}
	var fd int
	var err error
	if len(r.threads) > 0 {
		fd, err = r.threads[len(r.threads)-1].open(typ)
	} else {
		fd, err = openNS("/proc/" + strconv.Itoa(r.pid()) + "/ns/" + typ)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	return r.in(op.Num[0], func() error { return bindFD(fd, path) })
}

func (r *run) mountPrivate(op *plan.Op) error {
	typ, path := op.Str[0], op.Str[1]
	if err := r.intend(plan.Mount, path, plan.InPrivate); err != nil {
		return err
	}
	return r.in(plan.InPrivate, func() error {
		if err := os.MkdirAll(path, 0o711); err != nil {
			return err
		}
		var st, up unix.Stat_t
		if unix.Stat(path, &st) == nil && unix.Stat(filepath.Dir(path), &up) == nil && st.Dev != up.Dev {
			return nil // mounted before
		}
		// The low attribute bits are those of mount(2).
		return unix.Mount(typ, path, typ, uintptr(op.Num[0]&0xf), strings.Join(op.List[0], ","))
	})
}

func (r *run) rootfsHost(op *plan.Op) error {
	if err := r.intend(plan.Mount, op.Str[0], plan.InHost); err != nil {
		return err
	}
	if err := os.MkdirAll(op.Str[0], 0o711); err != nil {
		return err
	}
	return unix.MoveMount(r.slot(op.Slot[0]), "", unix.AT_FDCWD, op.Str[0], unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// state fills the pid and status into the template that the compiler made.
func (r *run) state(template []byte, status string) (specs.State, error) {
	var s specs.State
	if err := json.Unmarshal(template, &s); err != nil {
		return s, fmt.Errorf("decode state template: %w", err)
	}
	s.Pid, s.Status = r.pid(), specs.ContainerState(status)
	return s, nil
}

func (r *run) stateFile(op *plan.Op) error {
	s, err := r.state(op.Blob, op.Str[0])
	if err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	fd, err := memfd("state", b)
	r.fill(op.Slot[0], fd)
	return err
}

// hook runs a hook of the parent side with the state on its standard input.
func (r *run) hook(ctx context.Context, op *plan.Op) error {
	state, err := r.state(op.Blob, hookStatus(op.Str[0]))
	if err != nil {
		return err
	}
	return RunHook(ctx, specs.Hook{Path: op.Str[1], Args: op.List[0], Env: op.List[1]}, Seconds(int64(min(op.Num[0], math.MaxInt64))), state)
}

func hookStatus(kind string) string {
	switch kind {
	case "poststart":
		return string(specs.StateRunning)
	case "poststop":
		return string(specs.StateStopped)
	}
	return string(specs.StateCreating)
}

// Seconds is a timeout as requests and specs give it. More than a Duration holds, 292 years, is as good as for ever;
// multiplied as it is it would be negative, and its time up at once.
func Seconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/2/int64(time.Second))) * time.Second
}

// RunHook runs one hook, in the bundle's directory if it is still there, and waits for it (runtime-spec, config.md,
// POSIX-platform Hooks). A timeout of 0 is none. The error leaves it to the caller to name the hook.
func RunHook(ctx context.Context, h specs.Hook, timeout time.Duration, state specs.State) error {
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	if st, err := os.Stat(state.Bundle); err == nil && st.IsDir() {
		cmd.Dir = state.Bundle
	}
	cmd.Stdin = bytes.NewReader(input)
	cmd.WaitDelay = time.Second // a grandchild that keeps the pipe open must not hang us
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no end after %s", timeout)
	}
	if words := strings.TrimSpace(said.String()); err != nil && words != "" {
		return fmt.Errorf("%w: %s", err, words)
	}
	return err
}

// writeIDMaps writes the maps of a new user namespace; setgroups first, as user_namespaces(7) wants it.
func writeIDMaps(pid int, op *plan.Op) error {
	dir := "/proc/" + strconv.Itoa(pid)
	if op.Num[0] != 0 {
		if err := os.WriteFile(dir+"/setgroups", []byte("deny"), 0); err != nil {
			return fmt.Errorf("deny setgroups: %w", err)
		}
	}
	if err := writeIDMap(pid, "uid", op.Str[0]); err != nil {
		return err
	}
	return writeIDMap(pid, "gid", op.Str[1])
}

// writeIDMap writes one map. A user may write only that of his own id; for the ids that /etc/subuid and /etc/subgid
// give him there are newuidmap(1) and newgidmap(1), which are privileged.
func writeIDMap(pid int, kind, text string) error {
	err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/"+kind+"_map", []byte(text), 0)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		out, toolErr := exec.Command("new"+kind+"map", append([]string{strconv.Itoa(pid)}, strings.Fields(text)...)...).CombinedOutput()
		if toolErr == nil {
			return nil
		}
		err = fmt.Errorf("%w, and new%smap, which could do it: %w %s", err, kind, toolErr, bytes.TrimSpace(out))
	}
	if err != nil {
		return fmt.Errorf("write %s map %q: %w", kind, text, err)
	}
	return nil
}

// sendFD hands a descriptor over with a payload or, for a seccomp agent, with the state of the process that it watches.
func (r *run) sendFD(ctx context.Context, op *plan.Op) error {
	payload := op.Str[1]
	if len(op.Blob) > 0 {
		var s specs.ContainerProcessState
		if err := json.Unmarshal(op.Blob, &s); err != nil {
			return fmt.Errorf("decode state template: %w", err)
		}
		s.Pid, s.State.Pid, s.State.Status = r.pid(), r.pid(), specs.StateCreating
		if r.inside.PID != 0 {
			s.State.Pid, s.State.Status = r.inside.PID, r.inside.Status
			if s.State.Bundle == "" {
				s.State.Bundle = r.inside.Bundle
			}
		}
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		payload = string(b)
	}
	return sendFD(ctx, op.Str[0], payload, r.slot(op.Slot[0]))
}

func sendFD(ctx context.Context, socket, payload string, fd int) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", socket, err)
	}
	defer conn.Close()
	if payload == "" {
		payload = "\x00" // a stream socket carries no message without a byte
	}
	n, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte(payload), unix.UnixRights(fd), nil)
	if err == nil && n < len(payload) {
		_, err = conn.Write([]byte(payload[n:])) // more than the socket's buffer
	}
	if err != nil {
		return fmt.Errorf("send descriptor to %s: %w", socket, err)
	}
	return nil
}
