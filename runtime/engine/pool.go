package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/wire"
)

// pool is the set of monitors. A pod stays with its monitor; a new pod goes to one with room, else to a new one.
type pool struct {
	dir     string
	perPod  int // pods per monitor
	helper  *os.File
	log     *slog.Logger
	exits   func(*client, *wire.Message)
	died    func(*client)
	mu      sync.Mutex
	clients []*client
	byPod   map[string]*client
}

// attach connects to every monitor whose socket is there and hands each of their items to got. The socket of
// a monitor that has died is removed.
func (p *pool) attach(got func(*client, answer)) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("list monitors: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(p.dir, e.Name())
		if !strings.HasSuffix(path, ".sock") {
			continue
		}
		c, items, err := p.dial(path)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrMonitorGone) {
			_ = os.Remove(path)
			continue
		}
		if err != nil {
			return err
		}
		p.add(c)
		for _, it := range items {
			p.mu.Lock()
			p.assign(it.msg.Pod, c)
			p.mu.Unlock()
			got(c, it)
		}
	}
	return nil
}

func (p *pool) add(c *client) {
	p.mu.Lock()
	p.clients = append(p.clients, c)
	p.mu.Unlock()
	p.follow(c)
}

func (p *pool) remove(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients = slices.DeleteFunc(p.clients, func(other *client) bool { return other == c })
	for pod := range c.pods {
		delete(p.byPod, pod)
	}
}

// replace puts a new connection to the same monitor in the old one's place.
func (p *pool) replace(old, c *client) {
	p.mu.Lock()
	for pod := range old.pods {
		p.assign(pod, c)
	}
	p.mu.Unlock()
	p.add(c)
}

func (p *pool) assign(pod string, c *client) {
	if pod != "" {
		c.pods[pod] = true
		p.byPod[pod] = c
	}
}

// of gives the pod's monitor; one is started when there is none with room.
func (p *pool) of(pod string) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.byPod[pod]; c != nil {
		return c, nil
	}
	for _, c := range p.clients {
		if len(c.pods) < p.perPod {
			p.assign(pod, c)
			return c, nil
		}
	}
	c, err := p.start()
	if err != nil {
		return nil, err
	}
	p.assign(pod, c)
	return c, nil
}

// warm starts a monitor if none has room for the next pod. An error shows when the pod needs one.
func (p *pool) warm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.roomElsewhere(nil) {
		_, _ = p.start()
	}
}

// forget tells the pod's monitor that the pod is gone. A monitor without pods stays as the one spare, or leaves.
func (p *pool) forget(pod string) {
	p.mu.Lock()
	c := p.byPod[pod]
	delete(p.byPod, pod)
	if c == nil {
		p.mu.Unlock()
		return
	}
	delete(c.pods, pod)
	leave := len(c.pods) == 0 && p.roomElsewhere(c)
	if leave { // no new pod may be given to it
		p.clients = slices.DeleteFunc(p.clients, func(other *client) bool { return other == c })
	}
	p.mu.Unlock()
	c.tell(&wire.Message{Type: wire.TypeForget, Pod: pod})
	if leave {
		c.tell(&wire.Message{Type: wire.TypeForget})
	}
}

// roomElsewhere: another monitor can take the next pod. Caller holds mu.
func (p *pool) roomElsewhere(than *client) bool {
	return slices.ContainsFunc(p.clients, func(c *client) bool { return c != than && len(c.pods) < p.perPod })
}

// start runs a new monitor and adds it. Caller holds mu.
func (p *pool) start() (*client, error) {
	// Never a name that was used before: the one who had it may be about to remove it.
	path := filepath.Join(p.dir, strconv.FormatInt(time.Now().UnixNano(), 36)+".sock")
	socket, err := listenPacket(path)
	if err != nil {
		return nil, err
	}
	defer socket.Close() // a second time does nothing
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	n, s := int(null.Fd()), int(socket.Fd())
	pid, pidfd, err := linux.Spawn(linux.Child{Exe: int(p.helper.Fd()), Args: []string{"cri-mini-init", "monitor", path}, Files: []int{n, n, 2, s}, Setsid: true})
	if err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("start monitor: %w", err)
	}
	// Ours goes first: with it open, a monitor that has died already would be waited for in its own queue.
	_ = socket.Close()
	c, _, err := p.dial(path)
	if err != nil {
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
	}
	go reap(pid, pidfd)
	if err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("%w: %w", errNotBegun, err)
	}
	p.clients = append(p.clients, c)
	p.follow(c)
	return c, nil
}

// follow waits for the end of a monitor.
func (p *pool) follow(c *client) {
	go func() {
		<-c.dead
		p.remove(c)
		p.died(c)
	}()
}

// reap collects a monitor of ours when it ends.
func reap(pid int, pidfd *os.File) {
	defer pidfd.Close()
	var st unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &st, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// monitorSpawner clones inits through the pod's monitor.
type monitorSpawner struct {
	client *client
	msg    wire.Message // what Spawn needs besides the slots
}

func (s *monitorSpawner) spawn(ctx context.Context, req spawnRequest) (spawned, error) {
	msg := s.msg
	msg.Type, msg.CloneFlags, msg.Slots = wire.TypeSpawn, req.flags, req.slots
	a, err := s.client.call(ctx, &msg, req.fds...)
	if errors.Is(err, ErrMonitorGone) {
		// What it may have cloned has no plan yet, and ends when our end of its socket is closed.
		return spawned{}, fmt.Errorf("%w: %w", errNotBegun, err)
	}
	if err != nil {
		return spawned{}, err
	}
	if len(a.fds) != 1 {
		closeAll(a.fds)
		return spawned{}, errors.New("the monitor sent no pidfd")
	}
	return spawned{pid: a.msg.PID, startTime: a.msg.StartTime, pidfd: os.NewFile(uintptr(a.fds[0]), "pidfd"), at: unixNano(a.msg.At)}, nil
}
