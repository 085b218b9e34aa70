package sandbox

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ctrState is where a container is in its life.
type ctrState string

const (
	ctrCreating ctrState = "creating"
	ctrCreated  ctrState = "created"
	ctrStarting ctrState = "starting"
	ctrRunning  ctrState = "running"
	ctrExited   ctrState = "exited"
	ctrRemoving ctrState = "removing"
)

// Container is one container of a pod. Its fields below pod are guarded by the pod's mutex.
type Container struct {
	ID     string
	Config *criapi.ContainerConfig
	Image  imageRecord
	Log    string // "" for none
	// Volumes are the images of mounts, by the index of the mount.
	Volumes map[int]imageRecord
	pod     *Pod

	state    ctrState
	created  time.Time
	started  time.Time
	finished time.Time
	exitCode int
	reason   string
	message  string
	stopped  bool      // we sent it a signal
	starting *starting // nil when no start is in progress
	spec     *specs.Spec
	updating *pending      // an update is under way
	ended    chan struct{} // closed when it is exited or was never started
	cpu      cpuRate
}

// imageRecord is the image as it was when the container was created.
type imageRecord struct {
	ID  string `json:"id"`
	Ref string `json:"ref"`
}

// containerRecord is the journal's note of kind "ctr", and part of the tomb.
type containerRecord struct {
	Config   []byte              `json:"config"` // protobuf
	Image    imageRecord         `json:"image"`
	Volumes  map[int]imageRecord `json:"volumes,omitempty"`
	Log      string              `json:"log,omitempty"`
	State    ctrState            `json:"state"`
	Created  int64               `json:"created"` // ns, as the ones below
	Started  int64               `json:"started,omitempty"`
	Finished int64               `json:"finished,omitempty"`
	ExitCode int                 `json:"exitCode,omitempty"`
	Reason   string              `json:"reason,omitempty"`
	Message  string              `json:"message,omitempty"`
	Updating *pending            `json:"updating,omitempty"`
}

func (c *Container) record() (containerRecord, error) {
	b, err := proto.Marshal(c.Config)
	if err != nil {
		return containerRecord{}, fmt.Errorf("encode container config: %w", err)
	}
	return containerRecord{
		Config: b, Image: c.Image, Volumes: c.Volumes, Log: c.Log, State: c.state, Created: nanos(c.created), Started: nanos(c.started), Finished: nanos(c.finished),
		ExitCode: c.exitCode, Reason: c.reason, Message: c.message, Updating: c.updating,
	}, nil
}

func (r containerRecord) container(id string, p *Pod) (*Container, error) {
	c := &Container{
		ID: id, Config: &criapi.ContainerConfig{}, Image: r.Image, Volumes: r.Volumes, Log: r.Log, pod: p, state: r.State, created: fromNanos(r.Created), started: fromNanos(r.Started),
		finished: fromNanos(r.Finished), exitCode: r.ExitCode, reason: r.Reason, message: r.Message, updating: r.Updating, ended: make(chan struct{}),
	}
	if err := proto.Unmarshal(r.Config, c.Config); err != nil {
		return nil, fmt.Errorf("decode config of container %s: %w", id, err)
	}
	if c.state == ctrExited {
		close(c.ended)
	}
	return c, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// note writes the container's state into the journal. Caller holds the pod's mutex.
func (c *Container) note() error {
	if c.pod.journal == nil {
		return nil
	}
	rec, err := c.record()
	if err != nil {
		return err
	}
	return c.pod.journal.Note(noteContainer, c.ID, rec)
}

func (c *Container) setState(s ctrState) error {
	before := c.state
	c.state = s
	if err := c.note(); err != nil {
		c.state = before
		return fmt.Errorf("note container %s as %s: %w", c.ID, s, err)
	}
	return nil
}

// setRemoving is setState, as setEnding of a pod is. Caller holds the pod's mutex.
func (c *Container) setRemoving() error {
	err := c.setState(ctrRemoving)
	if errors.Is(err, ErrFull) {
		c.state = ctrRemoving
		return nil
	}
	return err
}

// dir holds the FIFOs and the bundle's config.json.
func (c *Container) dir() string { return filepath.Join(c.pod.dir, "c", c.ID) }

// layer holds the writable layer.
func (m *Manager) layer(id string) string { return filepath.Join(m.cfg.StateDir, "containers", id) }

func (c *Container) cgroup() string {
	if c.spec == nil || c.spec.Linux == nil {
		return ""
	}
	return c.spec.Linux.CgroupsPath
}

// saveSpec replaces the file by rename: an update that is cut short leaves one of the two.
func (c *Container) saveSpec() error {
	b, err := json.Marshal(c.spec)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	path, tmp := filepath.Join(c.dir(), "config.json"), filepath.Join(c.dir(), ".config.json")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write spec: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write spec: %w", err)
	}
	return nil
}

func (c *Container) loadSpec() error {
	b, err := os.ReadFile(filepath.Join(c.dir(), "config.json"))
	if err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	c.spec = &specs.Spec{}
	if err := json.Unmarshal(b, c.spec); err != nil {
		return fmt.Errorf("decode spec of container %s: %w", c.ID, err)
	}
	if c.spec.Process != nil {
		restoreValues(c.spec.Process.Env, c.Config.GetEnvs())
	}
	return nil
}

// restoreValues puts those values back into an environment that the file could not hold: JSON is UTF-8.
func restoreValues(env []string, from []*criapi.KeyValue) {
	exact := map[string]string{}
	for _, kv := range from {
		exact[kv.GetKey()] = string(kv.GetValue())
	}
	for i, e := range env {
		key, _, _ := strings.Cut(e, "=")
		if value, ok := exact[key]; ok && !utf8.ValidString(value) {
			env[i] = key + "=" + value
		}
	}
}

// creationKey is equal for requests that make the same container: one of the same name that says something else is no
// retry, and must not get what the other made.
func creationKey(podID string, c *criapi.ContainerConfig) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode container config: %w", err)
	}
	return fmt.Sprintf("%s %x", containerKey(podID, c), sha256.Sum256(b)), nil
}

func containerKey(podID string, c *criapi.ContainerConfig) string {
	return fmt.Sprintf("ctr %s/%q/%d", podID, c.GetMetadata().GetName(), c.GetMetadata().GetAttempt())
}
