package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/journal"
)

// The errors that cri/ maps to codes.
var (
	ErrNotFound = errors.New("not found")
	ErrInvalid  = errors.New("invalid argument")
	ErrState    = errors.New("wrong state")
	ErrTimeout  = errors.New("deadline exceeded")
	ErrGone     = engine.ErrGone      // the process has ended meanwhile
	ErrTooLarge = journal.ErrTooLarge // a config with more annotations, environment … than a record holds
	ErrFull     = journal.ErrFull     // no space for the journal, or no room in the pod network: no new pods, but Stop and Remove work

	ErrNotDirectory = errors.New("is not a directory") // of a part of an image
)

// invalidError is an error of oci, whose words say all, as an ErrInvalid.
type invalidError struct{ error }

func (e invalidError) Is(target error) bool { return target == ErrInvalid }
func (e invalidError) Unwrap() error        { return e.error }

func invalid(err error) error { return invalidError{err} }

// stateError is an error whose words say all, as an ErrState.
type stateError struct{ error }

func (e stateError) Is(target error) bool { return target == ErrState }
func (e stateError) Unwrap() error        { return e.error }

// fullError is an error whose words say all, as an ErrFull.
type fullError struct{ error }

func (e fullError) Is(target error) bool { return target == ErrFull }
func (e fullError) Unwrap() error        { return e.error }

// Image is what a container needs to know of its image.
type Image struct {
	ID            string // config digest
	Ref           string // a digest reference if there is one, for ContainerStatus.image_ref
	Config        *ispec.Image
	Passwd, Group []byte
}

// Images is the part of the image store that sandbox uses.
type Images interface {
	Resolve(ref string) (Image, bool)
	// Lend gives a container the layers of an image, or of one directory in it unless dir is "", and keeps the image until
	// Return. It may be called again. Its error is fs.ErrNotExist or ErrNotDirectory if dir is none.
	Lend(imageID, containerID, dir string) (lower []string, err error)
	Return(imageID, containerID string) error
}

// Config is what a Manager needs.
type Config struct {
	RunDir, StateDir string
	Facts            host.Facts
	Engine           *engine.Engine
	Known            []engine.Known // what the monitors told at engine.Open
	Cgroups          *cgroup.Tree
	Network          *netns.Network
	Images           Images
	Seccomp          func(*specs.LinuxSeccomp) (bpf []byte, flags uint64, description string, err error)
	Handlers         []string // runtime handlers besides ""
	Log              *slog.Logger
}

// Manager is all pods of this node.
type Manager struct {
	cfg    Config
	log    *slog.Logger
	tomb   *journal.Tomb
	burier *burier
	layers *layers
	events *events
	labels bool // pods have SELinux levels of their own

	apparmor appArmor

	mu      sync.RWMutex // a pod's may be held when this one is taken, never the reverse
	pods    map[string]*Pod
	ctrs    map[string]*Container
	joining map[string]*joined // calls in progress, by request
	levels  map[string]string  // SELinux levels in use, each with its pod
}

// Open reads back every pod from its journal, re-attaches what runs, undoes what was half made, and remembers
// the pods of the boot before as stopped.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	tomb, err := journal.OpenTomb(filepath.Join(cfg.StateDir, "tomb"))
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, log: cfg.Log, tomb: tomb, burier: newBurier(), layers: newLayers(), events: newEvents(), pods: map[string]*Pod{}, ctrs: map[string]*Container{}, joining: map[string]*joined{}, levels: map[string]string{}}
	if m.labels, err = labelsContainers(cfg.Facts.SELinux); err != nil {
		return nil, err
	}
	if err := m.makeSkeleton(); err != nil {
		return nil, err
	}
	if err := m.restore(ctx); err != nil {
		return nil, err
	}
	go m.watchExits()
	go m.watchTomb()
	m.finishAll(ctx)
	return m, nil
}

// joined is a call in progress that a retry of the same request waits for.
type joined struct {
	done chan struct{}
	id   string
	err  error
}

// callLimit bounds a call that goes on after its caller has gone.
const callLimit = 4 * time.Minute

// join runs f once for all callers with the same key, to its end even when they go away: a kubelet whose
// deadline has passed comes back with the same request and gets the result.
func (m *Manager) join(ctx context.Context, key string, f func(context.Context) (string, error)) (string, error) {
	m.mu.Lock()
	j := m.joining[key]
	if j == nil {
		j = &joined{done: make(chan struct{})}
		m.joining[key] = j
		go func() {
			work, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
			defer cancel()
			defer m.settleJoined(key, j)
			j.id, j.err = f(work)
		}()
	}
	m.mu.Unlock()
	select {
	case <-j.done:
		return j.id, j.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// settleJoined tells all who wait. A panic ends the call and not the daemon: other pods depend on it, and a retry would
// end the next one.
func (m *Manager) settleJoined(key string, j *joined) {
	if r := recover(); r != nil {
		j.err = fmt.Errorf("internal error: %v", r)
		m.log.Error("panic in a call", "op", key, "err", r, "stack", string(debug.Stack()))
	}
	m.mu.Lock()
	delete(m.joining, key)
	m.mu.Unlock()
	close(j.done)
}

// newID gives 64 hexadecimal digits, as every CRI runtime does.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// pod finds a pod by id or by a unique prefix of it.
func (m *Manager) pod(id string) (*Pod, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p, err := find(m.pods, id)
	if err != nil {
		return nil, fmt.Errorf("pod sandbox %q: %w", id, err)
	}
	return p, nil
}

func (m *Manager) container(id string) (*Container, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c, err := find(m.ctrs, id)
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	return c, nil
}

func find[T any](all map[string]*T, id string) (*T, error) {
	if v := all[id]; v != nil {
		return v, nil
	}
	if id == "" {
		return nil, fmt.Errorf("id is empty: %w", ErrNotFound)
	}
	var found *T
	for k, v := range all {
		if strings.HasPrefix(k, id) {
			if found != nil {
				return nil, fmt.Errorf("the prefix is not unique: %w", ErrInvalid)
			}
			found = v
		}
	}
	if found == nil {
		return nil, ErrNotFound
	}
	return found, nil
}

// makeSkeleton makes the bottom layer that every container has: the mount points that nearly every image lacks
// or has anyway. With them there, a start writes nothing into the writable layer (0.2–0.9 ms on ext4). It is looked at
// again with each plan, by nine look-ups: one who tidies up the state directory would stop every start.
func (m *Manager) makeSkeleton() error {
	root := m.skeleton()
	for _, dir := range []string{"proc", "sys", "dev", "etc", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make skeleton layer: %w", err)
		}
	}
	for _, name := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		f, err := os.OpenFile(filepath.Join(root, name), os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return fmt.Errorf("make skeleton layer: %w", err)
		}
		_ = f.Close()
	}
	if err := os.MkdirAll(m.emptyLayer(), 0o755); err != nil {
		return fmt.Errorf("make empty layer: %w", err)
	}
	return nil
}

func (m *Manager) skeleton() string { return filepath.Join(m.cfg.StateDir, "skeleton") }

// Pods counts the pods, running or not.
func (m *Manager) Pods() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.pods)
}

func (m *Manager) checkHandler(name string) error {
	if name == "" {
		return nil
	}
	for _, h := range m.cfg.Handlers {
		if h == name {
			return nil
		}
	}
	if len(m.cfg.Handlers) == 0 {
		return fmt.Errorf("runtime_handler: %q is not configured, nor is any but the empty one: %w", name, ErrInvalid)
	}
	return fmt.Errorf("runtime_handler: %q is none of the configured %q: %w", name, m.cfg.Handlers, ErrInvalid)
}

func metadataKey(c *criapi.PodSandboxConfig) string {
	md := c.GetMetadata()
	return fmt.Sprintf("%q/%q/%q/%d", md.GetNamespace(), md.GetName(), md.GetUid(), md.GetAttempt())
}
