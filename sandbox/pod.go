package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/journal"
)

// podState is where a pod is in its life. Only ready and stopped are ever told to a client.
type podState string

const (
	podCreating podState = "creating"
	podReady    podState = "ready"
	podStopping podState = "stopping"
	podStopped  podState = "stopped"
	podRemoving podState = "removing"
)

// Pod is one pod sandbox.
type Pod struct {
	ID      string
	Config  *criapi.PodSandboxConfig
	Handler string
	Created time.Time
	dir     string // RunDir/pods/<id>
	spec    *specs.Spec
	driver  string // of its cgroups, whatever a later daemon's is
	level   string // SELinux level of its own; "" on a node without SELinux

	mu         sync.Mutex
	state      podState
	journal    *journal.Journal // nil for a pod of an earlier boot
	att        *netns.Attachment
	containers map[string]*Container
	cpu        cpuRate
	updating   []cgroup.Former // an update is under way: what its cgroup held before
	gone       bool            // removed from the tomb: not to be written again
}

// podRecord is the journal's note of kind "pod", and part of the tomb.
type podRecord struct {
	Config  []byte            `json:"config"` // protobuf
	Handler string            `json:"handler,omitempty"`
	Created int64             `json:"created"` // ns
	State   podState          `json:"state"`
	Network *netns.Attachment `json:"network,omitempty"`
	Level   string            `json:"level,omitempty"`
	Driver  string            `json:"cgroupDriver,omitempty"`
	// Updating is what the pod's cgroup held before an update that is under way.
	Updating []cgroup.Former `json:"updating,omitempty"`
}

const (
	notePod       = "pod"
	noteContainer = "ctr"
)

func (p *Pod) record() (podRecord, error) {
	b, err := proto.Marshal(p.Config)
	if err != nil {
		return podRecord{}, fmt.Errorf("encode pod config: %w", err)
	}
	return podRecord{Config: b, Handler: p.Handler, Created: p.Created.UnixNano(), State: p.state, Network: p.att, Level: p.level, Driver: p.driver, Updating: p.updating}, nil
}

// setState notes a new state in the journal and then takes it. Caller holds mu.
func (p *Pod) setState(s podState) error {
	before := p.state
	p.state = s
	if p.journal == nil {
		return nil
	}
	rec, err := p.record()
	if err == nil {
		err = p.journal.Note(notePod, p.ID, rec)
	}
	if err != nil {
		p.state = before
		return fmt.Errorf("note pod %s as %s: %w", p.ID, s, err)
	}
	return nil
}

// setEnding is setState on the way to the end, which a full journal must not stop: without the note the next daemon
// would find the pod as it was before, and be asked for the same again. Caller holds mu.
func (p *Pod) setEnding(s podState) error {
	err := p.setState(s)
	if errors.Is(err, ErrFull) {
		p.state = s
		return nil
	}
	return err
}

func (r podRecord) pod(id, runDir string) (*Pod, error) {
	p := &Pod{ID: id, Config: &criapi.PodSandboxConfig{}, Handler: r.Handler, Created: time.Unix(0, r.Created), dir: podDir(runDir, id), state: r.State, att: r.Network, level: r.Level, driver: r.Driver, updating: r.Updating, containers: map[string]*Container{}}
	if err := proto.Unmarshal(r.Config, p.Config); err != nil {
		return nil, fmt.Errorf("decode config of pod %s: %w", id, err)
	}
	if p.Config.Linux == nil {
		p.Config.Linux = &criapi.LinuxPodSandboxConfig{}
	}
	return p, nil
}

// facts are the node's as they are for a pod.
func (m *Manager) facts(p *Pod) host.Facts {
	f := m.cfg.Facts
	f.CgroupDriver = p.driver
	return f
}

func podDir(runDir, id string) string { return filepath.Join(runDir, "pods", id) }

// attachmentData is the Data of the journal's attachment object.
func attachmentData(att *netns.Attachment) (json.RawMessage, error) {
	b, err := json.Marshal(att)
	if err != nil {
		return nil, fmt.Errorf("encode network attachment: %w", err)
	}
	return b, nil
}

func (p *Pod) hostNetwork() bool {
	return p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == criapi.NamespaceMode_NODE
}

// entry is the pod's part of the tomb, with all its containers. Caller holds mu.
func (p *Pod) entry(bootID string) (tombEntry, error) {
	rec, err := p.record()
	if err != nil {
		return tombEntry{}, err
	}
	e := tombEntry{BootID: bootID, Pod: rec, Containers: map[string]containerRecord{}}
	for id, c := range p.containers {
		if e.Containers[id], err = c.record(); err != nil {
			return tombEntry{}, err
		}
	}
	return e, nil
}

// tombEntry is what is known of a pod after a reboot.
type tombEntry struct {
	BootID     string                     `json:"bootID"`
	Pod        podRecord                  `json:"pod"`
	Containers map[string]containerRecord `json:"containers"`
}
