package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/bridge"
)

// PluginError is a CNI plugin's own error: which plugin, doing what, and the
// three fields of the specification's error result.
type PluginError struct {
	Plugin  string
	Command string // ADD, DEL, CHECK, STATUS, GC, VERSION
	Code    uint
	Msg     string
	Details string
	Err     error // the built-in plugin's own; nil for a program
}

// ErrFull is what Attach's error is when the built-in network has no address or no bridge port left.
var ErrFull = errors.New("pod network is full")

// Is says that it is ErrFull: the built-in plugin asks to try again later for nothing else.
func (e *PluginError) Is(target error) bool {
	return target == ErrFull && e.Plugin == bridge.Type && e.Code == types.ErrTryAgainLater
}

// Unwrap gives the built-in plugin's error.
func (e *PluginError) Unwrap() error { return e.Err }

func (e *PluginError) Error() string {
	s := fmt.Sprintf("cni plugin %s %s: %s", e.Plugin, e.Command, e.Msg)
	if e.Details != "" {
		s += ": " + e.Details
	}
	return fmt.Sprintf("%s (code %d)", s, e.Code)
}

// executor is libcni's way to plugins: the built-in one is a function call,
// others are programs.
type executor struct {
	builtin *bridge.Plugin
	version.PluginDecoder
}

func (e *executor) FindInPath(plugin string, paths []string) (string, error) {
	if plugin == bridge.Type {
		return plugin, nil
	}
	path, err := invoke.FindInPath(plugin, paths)
	if err != nil {
		return "", fmt.Errorf("cni plugin %s is in none of %s", plugin, strings.Join(paths, ", "))
	}
	return path, nil
}

func (e *executor) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var a bridge.Args
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "CNI_COMMAND":
			a.Command = v
		case "CNI_CONTAINERID":
			a.ContainerID = v
		case "CNI_NETNS":
			a.Netns = v
		case "CNI_IFNAME":
			a.IfName = v
		}
	}
	var out []byte
	var err error
	builtin := path == bridge.Type
	if builtin {
		out, err = e.builtin.Exec(ctx, stdin, a)
	} else {
		out, err = run(ctx, path, stdin, environ)
	}
	if err == nil {
		return out, nil
	}
	p := &PluginError{Plugin: filepath.Base(path), Command: a.Command, Code: types.ErrInternal, Msg: err.Error()}
	if builtin {
		p.Err = err
	}
	var t *types.Error
	if errors.As(err, &t) {
		p.Code, p.Msg, p.Details = t.Code, t.Msg, t.Details
	}
	return nil, p
}

// maxOutput bounds what is kept of a plugin's standard output and error.
const maxOutput = 1 << 20

// run starts a plugin in a process group of its own and, when ctx ends, kills
// the group: many plugins are scripts or start helpers, and a helper that holds
// the pipe must not hold up the call.
func run(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	for try := 0; ; try++ {
		var stdout, stderr limited
		c := exec.CommandContext(ctx, path)
		c.Env, c.Stdin, c.Stdout, c.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGKILL) }
		c.WaitDelay = time.Second
		err := c.Run()
		if err == nil {
			return stdout.Bytes(), nil
		}
		if errors.Is(err, unix.ETXTBSY) && try < 5 {
			// The CNI daemon is just replacing the binary.
			time.Sleep(200 * time.Millisecond)
			continue
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("killed: %w", context.Cause(ctx))
		}
		return nil, explain(err, stdout.Bytes(), stderr.Bytes())
	}
}

// explain reads the error result that a failed plugin prints; what printed
// something else, or nothing, is quoted.
func explain(err error, stdout, stderr []byte) error {
	var t types.Error
	if json.Unmarshal(stdout, &t) == nil && (t.Code != 0 || t.Msg != "") {
		return &t
	}
	t = types.Error{Code: types.ErrUnknown, Msg: err.Error(), Details: strings.TrimSpace(string(stderr))}
	if t.Details == "" {
		t.Details = strings.TrimSpace(string(stdout))
	}
	return &t
}

type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.Len(); room < len(p) {
		l.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
