package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// Config is what an Engine needs to know.
type Config struct {
	RunDir         string // on a tmpfs
	Facts          host.Facts
	Cgroups        *cgroup.Tree
	Helper         string // path of the cri-mini-init binary
	PodsPerMonitor int
	Log            *slog.Logger
}

// Engine runs pods and containers through monitors. All methods may be called concurrently, but for one
// container only one at a time.
type Engine struct {
	cfg     Config
	helper  *os.File
	sealed  string
	private *private
	pool    *pool
	exits   chan Exit
	closed  chan struct{} // closed by Close

	mu      sync.Mutex
	procs   map[string]*process
	closing bool
}

// Exit tells that a container's or an exec's process has ended.
type Exit struct {
	ID, Pod  string
	Code     int // 0–255; 128+n for a signal n
	Signal   int
	At       time.Time
	TimedOut bool
	Unknown  bool // nobody could learn the code
	Dropped  uint64
}

// process is a running process that the engine knows.
type process struct {
	id, pod   string
	kind      wire.Kind
	pid       int
	startTime uint64
	pidfd     *os.File
	client    *client
	tty       *os.File // a dup of the terminal's master: it outlives the monitor
	stdin     *os.File // holds the container's FIFO open for writing; see holdStdin
	dir, log  string
	streams   []int              // its output FIFOs, see hold
	deadline  time.Time          // of an exec; its monitor keeps it, while that lives
	killDir   string             // cgroup directory of an exec with a deadline
	lost      bool               // its monitor died before we had its pidfd
	started   bool               // its start has succeeded: of a container that has not, nobody is told
	adopted   bool               // its parent is not the monitor that watches it
	told      chan *wire.Message // what that monitor says of its end: then its log is written
	done      chan struct{}      // closed when it has ended
	exit      Exit
}

// Known is what a monitor told about a process at Open. Without an ID it says that the monitor serves the pod.
type Known struct {
	ID, Pod   string
	PID       int
	StartTime uint64
	Running   bool
	Exit      Exit
}

// dirs are what the engine and the pods' plans have in the run directory.
var dirs = []string{"monitors", "netns", "pods", stage}

// Open seals the helper, opens the private mount namespace and attaches to the monitors that run already.
func Open(cfg Config) (_ *Engine, _ []Known, err error) {
	defer func() {
		if err != nil {
			removeDirs(cfg.RunDir)
		}
	}()
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(cfg.RunDir, dir), 0o711); err != nil {
			return nil, nil, fmt.Errorf("make run directory: %w", err)
		}
	}
	// Orphans of a monitor that dies become our children, so that their exit codes are not lost.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("become subreaper: %w", err)
	}
	e := &Engine{cfg: cfg, exits: make(chan Exit, 1024), closed: make(chan struct{}), procs: map[string]*process{}}
	if e.helper, e.sealed, err = linux.SealFile(cfg.Helper); err != nil {
		return nil, nil, fmt.Errorf("seal %s: %w", cfg.Helper, err)
	}
	if e.private, err = openPrivate(cfg.RunDir); err != nil {
		return nil, nil, err
	}
	e.pool = &pool{dir: filepath.Join(cfg.RunDir, "monitors"), perPod: max(cfg.PodsPerMonitor, 1), helper: e.helper, log: cfg.Log, exits: e.onExit, died: e.onMonitorDeath, byPod: map[string]*client{}}
	go reapStrays(e.closed)
	var known []Known
	err = e.pool.attach(func(c *client, it answer) { known = append(known, e.learn(c, it)) })
	return e, known, err
}

// stage is the directory of the run directory where a container's root is attached in its own mount namespace.
const stage = "stage"

// Stage is where inits attach their root file system: an empty directory of the host.
func (e *Engine) Stage() string { return filepath.Join(e.cfg.RunDir, stage) }

// Sealed tells how the helper is protected against a container that overwrites its runtime (CVE-2019-5736).
func (e *Engine) Sealed() string { return e.sealed }

// Exits delivers the end of each container. Each must be acknowledged once it is recorded.
func (e *Engine) Exits() <-chan Exit { return e.exits }

// Ack lets the monitor forget an exit that the caller has recorded.
func (e *Engine) Ack(id string) {
	e.mu.Lock()
	p := e.procs[id]
	if p != nil && p.ended() {
		delete(e.procs, id)
	}
	e.mu.Unlock()
	if p != nil && p.client != nil {
		p.client.tell(&wire.Message{Type: wire.TypeAck, ID: id})
	}
	if p != nil && p.tty != nil {
		_ = p.tty.Close()
	}
}

// Close lets go of everything; containers and monitors run on.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	close(e.closed)
	e.pool.mu.Lock()
	clients := append([]*client(nil), e.pool.clients...)
	e.pool.mu.Unlock()
	for _, c := range clients {
		_ = c.conn.Close()
	}
	e.private.close()
	_ = e.helper.Close()
}

// leaveLimit is how long Dissolve waits for monitors that were hung up on. They need a few milliseconds.
const leaveLimit = 2 * time.Second

// Dissolve removes what the engine itself keeps in the run directory, once no pod is left, after Close. What is not
// empty stays.
func (e *Engine) Dissolve() error {
	err := unpin(filepath.Join(e.cfg.RunDir, privatePin))
	for limit := time.Now().Add(leaveLimit); errors.Is(os.Remove(e.pool.dir), unix.ENOTEMPTY); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			os.RemoveAll(e.pool.dir) // sockets of monitors that were killed, or are stopped and leave when they go on
		}
	}
	removeDirs(e.cfg.RunDir)
	return err
}

// removeDirs removes those that are empty.
func removeDirs(runDir string) {
	for _, dir := range dirs {
		os.Remove(filepath.Join(runDir, dir))
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (e *Engine) newRun(id, owner string, p *plan.Plan, j Journal) *run {
	r := &run{id: id, owner: owner, plan: p, journal: j, cgroups: e.cfg.Cgroups, private: e.private, given: map[string]int{}, log: e.cfg.Log}
	r.init()
	return r
}

func unixNano(n int64) time.Time { return time.Unix(0, n) }
