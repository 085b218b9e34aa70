package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stages are this program again, under other names, each to be what the next
// one needs around it:
//
//	born    is moved into cgroups of the run; its child's cgroup namespace
//	        therefore has its root there
//	init    is PID 1 of the namespaces: it reaps, and takes everything with it
//	inside  does the work
//
// Each dies with its parent (PR_SET_PDEATHSIG), so that a SIGKILL at any point
// leaves no process; cgroups and directories go at the next run.
var stages = map[string]func(file string) error{"born": born, "init": initStage, "inside": inside}

const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// runInNamespaces runs the job as stages and takes its cgroups away behind it.
func runInNamespaces(ctx context.Context, j job) error {
	var err error
	if j.Mounts, err = findCgroups(); err != nil {
		return err
	}
	removeStaleCgroups(j.Mounts)
	name := fmt.Sprintf("%s%d", cgroupPrefix, os.Getpid())
	defer func() {
		if err := removeCgroups(j.Mounts, name); err != nil {
			logf("%v", err)
		}
	}()
	if err := makeCgroups(j.Mounts, name); err != nil {
		return err
	}
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	file := filepath.Join(j.Scratch, "job.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	gate, open, err := os.Pipe()
	if err != nil {
		return err
	}
	defer gate.Close()
	cmd := stage("born", file, 0)
	cmd.Stdin = gate
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := joinCgroups(j.Mounts, name, cmd.Process.Pid); err != nil {
		open.Close()
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if _, err := open.Write([]byte{1}); err != nil {
		return err
	}
	open.Close()
	return waitStage(ctx, cmd)
}

func stage(name, file string, flags uintptr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", name, file)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// waitStage passes a stop on, with a minute to follow it.
func waitStage(ctx context.Context, cmd *exec.Cmd) error {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
		}
	}()
	var failed *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &failed) && failed.ExitCode() > 0 {
		return exitCode(failed.ExitCode())
	} else if err != nil {
		return fmt.Errorf("run stage %s: %w", cmd.Args[1], err)
	}
	return nil
}

func stopContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

func born(file string) error {
	ctx, stop := stopContext()
	defer stop()
	if n, err := os.Stdin.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("wait for cgroups: the parent gave up: %w", err)
	}
	cmd := stage("init", file, namespaces)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	return waitStage(ctx, cmd)
}

// initStage waits for any child, and ends as the one it started does.
func initStage(file string) error {
	ctx, stop := stopContext()
	defer stop()
	cmd := stage("inside", file, 0)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = unix.Kill(cmd.Process.Pid, unix.SIGTERM)
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for children: %w", err)
		}
		if pid != cmd.Process.Pid {
			continue
		}
		if status.Signaled() {
			return fmt.Errorf("run stage inside: killed by %v", status.Signal())
		}
		return exitCode(status.ExitStatus())
	}
}

func inside(file string) error {
	ctx, stop := stopContext()
	defer stop()
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	if err := prepareNode(j); err != nil {
		return err
	}
	return runWithDaemon(ctx, j)
}
