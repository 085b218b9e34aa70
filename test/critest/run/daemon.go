package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// child is a process of the run whose end is watched.
type child struct {
	name  string
	log   string // file
	cmd   *exec.Cmd
	ended chan struct{} // closed when err is set
	err   error
}

// startChild starts a command with its output in a file.
func startChild(name, logFile string, cmd *exec.Cmd) (*child, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, log: logFile, cmd: cmd, ended: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// until polls until ready says yes, the child ends or the limit is over.
func (c *child) until(ctx context.Context, limit time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ready() {
		select {
		case <-c.ended:
			return fmt.Errorf("wait for %s: it ended (%v) before it was ready; see %s", c.name, c.err, c.log)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: not ready after %v: %w", c.name, limit, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// stop asks the child to end, and makes it after the limit.
func (c *child) stop(limit time.Duration) {
	select {
	case <-c.ended:
		fmt.Printf("note: %s ended before it was told to (%v); see %s\n", c.name, c.err, c.log)
		return
	default:
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(limit):
		fmt.Printf("note: %s did not end %v after SIGTERM; killed\n", c.name, limit)
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}

// runWithDaemon starts registry and daemon, runs the specs, and looks at what
// is left when all pods are removed and the daemon has ended.
func runWithDaemon(ctx context.Context, j job) error {
	registry, err := startRegistry(ctx, j)
	if err != nil {
		return err
	}
	defer registry.stop(5 * time.Second)
	before := look(j)
	began := time.Now()
	daemon, err := startDaemon(ctx, j)
	if err != nil {
		return err
	}
	fmt.Printf("daemon: %v, ready after %v, log in %s\n", daemon.cmd.Args, time.Since(began).Round(time.Millisecond), j.daemonLog())
	result := runSpecs(ctx, j, daemon)
	removePods(j)
	daemon.stop(20 * time.Second)
	left := leftBehind(j, before)
	for _, what := range left {
		fmt.Println("left behind:", what)
	}
	if result == nil && j.Strict && len(left) > 0 {
		fmt.Printf("FAIL: the daemon left %d things behind\n", len(left))
		return exitCode(1)
	}
	return result
}

func startRegistry(ctx context.Context, j job) (*child, error) {
	ready := filepath.Join(j.Scratch, "registry.ready")
	cmd := exec.Command(j.Tools.path("registry"), "--layout", j.Tools.Layout, "--certs-dir", j.certs(), "--ready", ready)
	registry, err := startChild("registry", filepath.Join(j.Report, "registry.log"), cmd)
	if err != nil {
		return nil, err
	}
	err = registry.until(ctx, 2*time.Minute, func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
	if err != nil {
		registry.stop(0)
		return nil, err
	}
	return registry, nil
}

func startDaemon(ctx context.Context, j job) (*child, error) {
	if err := os.WriteFile(j.config(), []byte(j.fill(j.Template)), 0o644); err != nil {
		return nil, err
	}
	args := make([]string, 0, len(j.Daemon))
	for _, word := range j.Daemon {
		args = append(args, j.fill(word))
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "TMPDIR="+j.tmp())
	daemon, err := startChild("daemon", j.daemonLog(), cmd)
	if err != nil {
		return nil, err
	}
	err = daemon.until(ctx, time.Minute, func() bool {
		conn, err := net.Dial("unix", j.socket())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if err != nil {
		daemon.stop(time.Second)
		if text, readErr := os.ReadFile(j.daemonLog()); readErr == nil {
			fmt.Printf("%s\n", text[max(0, len(text)-4096):])
		}
		return nil, err
	}
	return daemon, nil
}

// removePods removes what specs left, failed or not: a pod outlives its daemon, and
// only pods that should have gone say something about leaks.
func removePods(j job) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	crictl := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, j.crictl(), append([]string{"--runtime-endpoint", j.endpoint(), "--timeout", "60s"}, args...)...)
		return cmd.Output() // standard error has warnings about a missing crictl.yaml
	}
	pods, err := crictl("pods", "-q")
	if err != nil {
		fmt.Printf("note: list pods: %v\n", err)
		return
	}
	if len(pods) == 0 {
		return
	}
	fmt.Printf("note: the specs left %d pods; removing them\n", countLines(pods))
	if _, err := crictl("rmp", "-f", "-a"); err != nil {
		fmt.Printf("note: remove pods: %v; see %s\n", err, j.daemonLog())
	}
}
