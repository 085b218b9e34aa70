package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/journal"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// Errors of a Command.
var (
	ErrNoContainer = errors.New("container does not exist")
	ErrExists      = errors.New("container with given ID already exists") // runc's words
	ErrBusy        = errors.New("another command is at work on this container")
	ErrStatus      = errors.New("the container's status does not allow it")
)

// statusError is an ErrStatus that says which status and what would help.
type statusError string

func (e statusError) Error() string { return string(e) }

// Is makes it an ErrStatus.
func (e statusError) Is(target error) bool { return target == ErrStatus }

// CommandConfig is what a Command needs to know.
type CommandConfig struct {
	Root string // directory of all containers, one directory each; "/run/mini-runc"
	// Cgroups is asked at most once, and only by what needs it: to know the hierarchies costs half a millisecond.
	Cgroups func() (*cgroup.Tree, error)
	Helper  string // path of the cri-mini-init binary; create, run and exec need it
	// Warn hears of what went wrong and stops nothing, such as a poststop hook that failed. May be nil.
	Warn func(string)
}

// Command is the engine without monitors and without a daemon, as runc's command line wants it: each call is a
// process of its own, and everything that the next one must know is in the container's directory:
//
//	<root>/<id>/journal      the objects to undo, and the notes "container" and "process"
//	<root>/<id>/progress     the page in which init says how far it is; it stays until delete
//	<root>/<id>/gate         the FIFO at which init waits between create and start
//	<root>/<id>/config.json  the specification as it was at create
//
// Two locks (flock(2)) keep calls apart. The directory's belongs to the one command that changes the container's
// life: create, start or delete. The progress file's is held for single records of the journal, so that state
// can be asked by a hook that create is waiting for.
type Command struct {
	cfg     CommandConfig
	cgroups func() (*cgroup.Tree, error)
}

// NewCommand touches no file.
func NewCommand(cfg CommandConfig) *Command {
	return &Command{cfg: cfg, cgroups: sync.OnceValues(cfg.Cgroups)}
}

// Gate is the path of the FIFO that a plan for Create waits at.
func (c *Command) Gate(id string) string { return filepath.Join(c.dir(id), "gate") }

// Init gives the process id of a container's init; ErrGone when it has ended.
func (c *Command) Init(id string) (int, error) {
	r, err := c.read(id)
	if err == nil && (r.proc.PID == 0 || r.status == string(specs.StateStopped)) {
		err = ErrGone
	}
	return r.proc.PID, err
}

// Group gives the path of a container's cgroup within each hierarchy, "" for one that has none.
func (c *Command) Group(id string) (string, error) {
	r, err := c.read(id)
	return r.Cgroup, err
}

// Config reads the specification of a container as it was at create.
func (c *Command) Config(id string) ([]byte, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(c.dir(id), "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %s: %w", id, ErrNoContainer)
	}
	return b, err
}

func (c *Command) dir(id string) string { return filepath.Join(c.cfg.Root, id) }

func (c *Command) warn(format string, args ...any) {
	if c.cfg.Warn != nil {
		c.cfg.Warn(fmt.Sprintf(format, args...))
	}
}

// CheckID keeps ids out of other directories: they become parts of paths.
func CheckID(id string) error {
	if id == "" {
		return errors.New("container id cannot be empty")
	}
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_+-.", c) {
			return fmt.Errorf("container id %q: invalid container ID format: only letters, digits and _ + - . are allowed", id)
		}
	}
	if id == "." || id == ".." || len(id) > 255 {
		return fmt.Errorf("container id %q: invalid container ID format: not a name for a directory", id)
	}
	return nil
}

// commandContainer is one container whose directory this process has locked.
type commandContainer struct {
	cmd  *Command
	id   string
	lock *os.File // the directory
	page *os.File // the progress file; nil in what is left of a create that was killed early
	j    *journal.Journal
}

// make begins a container: its directory, its lock, its progress page and its journal.
func (c *Command) make(id string) (*commandContainer, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.cfg.Root, 0o711); err != nil {
		return nil, fmt.Errorf("make root directory: %w", err)
	}
	dir := c.dir(id)
	if err := os.Mkdir(dir, 0o711); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("container %s: %w", id, ErrExists)
		}
		return nil, fmt.Errorf("make directory of container: %w", err)
	}
	ct := &commandContainer{cmd: c, id: id}
	err := ct.begin(dir)
	if err == nil {
		return ct, nil
	}
	if ct.lock != nil { // else it is somebody else's already
		_ = os.RemoveAll(dir)
	}
	ct.close()
	return nil, err
}

func (ct *commandContainer) begin(dir string) (err error) {
	if ct.lock, err = lockDir(dir); err != nil {
		return err
	}
	if ct.page, err = os.OpenFile(filepath.Join(dir, "progress"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("make progress page: %w", err)
	}
	if err = ct.page.Truncate(linux.PageSize); err != nil {
		return fmt.Errorf("make progress page: %w", err)
	}
	ct.j, err = journal.Create(filepath.Join(dir, "journal"), ct.id)
	return err
}

// open locks a container that is there.
func (c *Command) open(id string) (*commandContainer, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	dir := c.dir(id)
	lock, err := lockDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %s: %w", id, ErrNoContainer)
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	ct := &commandContainer{cmd: c, id: id, lock: lock}
	ct.page, err = os.OpenFile(filepath.Join(dir, "progress"), os.O_RDWR, 0)
	if err == nil {
		ct.j, err = journal.Open(filepath.Join(dir, "journal"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		ct.close()
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	return ct, nil
}

// lockWait is how long a command waits for another one, such as a delete for a start.
const lockWait = 10 * time.Second

// lockDir takes the lock of a container's directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		if time.Now().After(deadline) {
			err = ErrBusy
			break
		}
	}
	var st unix.Stat_t
	if err == nil && unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 0 {
		err = fs.ErrNotExist // another delete was faster
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (ct *commandContainer) close() {
	if ct.j != nil {
		_ = ct.j.Close()
	}
	if ct.page != nil {
		_ = ct.page.Close()
	}
	if ct.lock != nil {
		_ = ct.lock.Close()
	}
}

// record runs one append to the journal under the lock that readers take.
func (ct *commandContainer) record(add func() error) error {
	fd := int(ct.page.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock journal of %s: %w", ct.id, err)
	}
	defer func() { _ = unix.Flock(fd, unix.LOCK_UN) }()
	return add()
}

// Intend implements Journal.
func (ct *commandContainer) Intend(o plan.Object) error {
	return ct.record(func() error { return ct.j.Intend(o) })
}

// Note implements Journal.
func (ct *commandContainer) Note(kind, id string, v any) error {
	return ct.record(func() error { return ct.j.Note(kind, id, v) })
}

// remove undoes everything that the container ever made, and forgets it. Whatever does not go stays written
// down for the next delete.
func (ct *commandContainer) remove(ctx context.Context) error {
	dir := ct.cmd.dir(ct.id)
	if ct.j != nil {
		n, err := ct.notes()
		if err != nil {
			return err
		}
		if err := ct.j.Undo(ctx, "", func(ctx context.Context, o plan.Object) error { return ct.release(ctx, n, o) }); err != nil {
			return fmt.Errorf("container %s: %w", ct.id, err)
		}
		if err := ct.record(ct.j.Remove); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove directory of container: %w", err)
	}
	return nil
}
