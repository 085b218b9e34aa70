package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/testbed"
)

// Daemon is a daemon on directories of its own, with clients of its socket.
type Daemon struct {
	Bin        string // directory of the programs
	Dir        string // on disk: configuration, log, state
	Run, State string // run_dir and state_dir
	Config     string // more lines of configuration, with their table headers

	Runtime criapi.RuntimeServiceClient
	Images  criapi.ImageServiceClient
	Conn    *grpc.ClientConn

	cmd   *exec.Cmd
	ended chan struct{}
}

// New makes the directories of a daemon of this name on the machine.
func New(bin, name string) (*Daemon, error) {
	disk, run, err := Scratch()
	if err != nil {
		return nil, err
	}
	d := &Daemon{Bin: bin, Dir: filepath.Join(disk, name), Run: filepath.Join(run, name)}
	d.State = filepath.Join(d.Dir, "state")
	return d, os.MkdirAll(d.Dir, 0o755)
}

// Socket is the CRI's.
func (d *Daemon) Socket() string { return filepath.Join(d.Run, "cri-mini.sock") }

// PID is 0 when the daemon does not run.
func (d *Daemon) PID() int {
	if d.cmd == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

func (d *Daemon) configFile() (string, error) {
	path := filepath.Join(d.Dir, "config.toml")
	text := fmt.Sprintf("run_dir = %q\nstate_dir = %q\n%s", d.Run, d.State, d.Config)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// Load puts an archive's images into the store, through the daemon if it runs.
func (d *Daemon) Load(archive string) error {
	config, err := d.configFile()
	if err != nil {
		return err
	}
	if out, err := exec.Command(filepath.Join(d.Bin, "cri-mini"), "image", "load", "--config", config, archive).CombinedOutput(); err != nil {
		return fmt.Errorf("load image: %w\n%s", err, out)
	}
	return nil
}

// Refused runs a daemon that must not come to serve, and gives what it said.
func (d *Daemon) Refused() (string, error) {
	config, err := d.configFile()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testbed.Limit(time.Minute))
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(d.Bin, "cri-mini"), "serve", "--config", config).CombinedOutput()
	if ctx.Err() != nil || err == nil {
		return "", fmt.Errorf("the daemon serves, or ended well; it said:\n%s", out)
	}
	return string(out), nil
}

// maxMessage is kubelet's limit of a message in bytes.
const maxMessage = 64 << 20

// Start runs the daemon and returns when it serves.
func (d *Daemon) Start() error {
	config, err := d.configFile()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(d.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(d.Bin, "cri-mini"), "serve", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	d.cmd, d.ended = cmd, ended
	if d.Conn, err = grpc.NewClient("unix://"+d.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second})); err != nil {
		return err
	}
	d.Runtime, d.Images = criapi.NewRuntimeServiceClient(d.Conn), criapi.NewImageServiceClient(d.Conn)
	return d.await()
}

func (d *Daemon) await() error {
	for limit := time.Now().Add(testbed.Limit(20 * time.Second)); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-d.ended:
			return fmt.Errorf("the daemon ended (%s); its log ends with:\n%s", d.cmd.ProcessState, d.LogTail(20))
		default:
		}
		if _, err := os.Stat(d.Socket()); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), testbed.Limit(time.Second))
			_, err = d.Runtime.Version(ctx, &criapi.VersionRequest{})
			cancel()
			if err == nil {
				return nil
			}
		}
		if time.Now().After(limit) {
			return errors.New("the daemon does not serve in time; its log ends with:\n" + d.LogTail(20))
		}
	}
}

// Stop asks the daemon to end and waits for it; one that does not end is killed.
func (d *Daemon) Stop() error {
	if d.cmd == nil {
		return nil
	}
	_ = d.Conn.Close()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case <-d.ended:
	case <-time.After(testbed.Limit(10 * time.Second)):
		err = errors.New("the daemon does not end on SIGTERM")
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	d.cmd = nil
	return err
}

// Kill ends the daemon with SIGKILL and waits for it.
func (d *Daemon) Kill() error {
	_ = d.Conn.Close()
	err := d.cmd.Process.Kill()
	<-d.ended
	d.cmd = nil
	return err
}

func (d *Daemon) logFile() string { return filepath.Join(d.Dir, "daemon.log") }

// LogTail gives the last lines of the daemon's log.
func (d *Daemon) LogTail(n int) string {
	b, err := os.ReadFile(d.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimRight(b, "\n")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
