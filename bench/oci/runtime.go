package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What is timed, in the order of the table.
const (
	callRun    = "run true"
	callCreate = "create"
	callStart  = "start"
	callDelete = "delete"
	callExec   = "exec true"
	callState  = "state"
	callKill   = "kill"
)

// runtime is one runtime under test.
type runtime struct {
	name, program string
	bundle, root  string
	cgroup        string
	took          map[string][]float64 // ms, one for each round
	memory        map[string]int       // KiB
}

// longLived is the container that execs go into.
const longLived = "long"

// newRuntime makes a bundle and starts the container that execs go into.
func newRuntime(dir, busybox, name, program string) (*runtime, error) {
	program, version, _ := strings.Cut(program, "@")
	r := &runtime{
		name: name, program: program, bundle: filepath.Join(dir, name), root: filepath.Join(dir, name, "root"),
		cgroup: "/bench-oci-" + name, took: map[string][]float64{}, memory: map[string]int{},
	}
	if err := r.makeBundle(busybox, version); err != nil {
		return nil, fmt.Errorf("make bundle for %s: %w", name, err)
	}
	if err := r.configure(longLived, 0, "/bin/busybox", "sleep", "1000000"); err != nil {
		return nil, err
	}
	if _, err := r.call("run", "--detach", longLived); err != nil {
		return nil, err
	}
	return r, r.configure("x", 0, "/bin/busybox", "true")
}

// makeBundle has this runtime write its own config.json, and changes in it what
// is not the same for all.
func (r *runtime) makeBundle(busybox, version string) error {
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(r.bundle, "rootfs", d), 0o755); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.bundle, "rootfs/bin/busybox"), text, 0o755); err != nil {
		return err
	}
	spec := defaultSpec()
	if version != "" {
		spec.Version = version
	}
	return r.writeSpec(spec)
}

func (r *runtime) writeSpec(spec *specs.Spec) error {
	text, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.bundle, "config.json"), text, 0o644)
}

// configure sets the program of the next container, and its memory limit if it has one.
func (r *runtime) configure(id string, limit int64, args ...string) error {
	text, err := os.ReadFile(filepath.Join(r.bundle, "config.json"))
	if err != nil {
		return err
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(text, spec); err != nil {
		return err
	}
	spec.Process.Args = args
	spec.Linux.CgroupsPath = r.cgroup + "/" + id
	spec.Linux.Resources.Memory = nil
	if limit > 0 {
		spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	}
	return r.writeSpec(spec)
}

// command is one call, as a caller of runtimes makes it. Its streams are no
// pipes: the container would hold them open.
func (r *runtime) command(args ...string) *exec.Cmd {
	cmd := exec.Command(r.program, append([]string{"--root", r.root}, args...)...)
	cmd.Dir = r.bundle
	return cmd
}

// call runs a command and says how long it took, in ms.
func (r *runtime) call(args ...string) (float64, error) {
	log, err := os.Create(filepath.Join(r.bundle, "log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := r.command(args...)
	cmd.Stderr = log
	began := time.Now()
	err = cmd.Run()
	took := float64(time.Since(began)) / 1e6
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		return took, fmt.Errorf("%s %s: %w: %s", r.name, strings.Join(args, " "), err, bytes.TrimSpace(said))
	}
	return took, nil
}

// round runs each command once.
func (r *runtime) round() error {
	step := func(name string, args ...string) error {
		took, err := r.call(args...)
		if err == nil {
			r.took[name] = append(r.took[name], took)
		}
		return err
	}
	pidFile := filepath.Join(r.bundle, "pid")
	for _, s := range []func() error{
		func() error { return step(callRun, "run", "x") },
		func() error { return step(callCreate, "create", "--pid-file", pidFile, "x") },
		func() error { return step(callStart, "start", "x") },
		func() error { return awaitEnd(pidFile) },
		func() error { return step(callDelete, "delete", "x") },
		func() error { return step(callExec, "exec", longLived, "/bin/busybox", "true") },
		func() error { return step(callState, "state", longLived) },
		func() error { return step(callKill, "kill", longLived, "CONT") },
	} {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// awaitEnd waits until the process of a pid file is gone or a zombie.
func awaitEnd(pidFile string) error {
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + string(pid) + "/stat")
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return nil
		}
	}
	return errors.New("the container's process does not end")
}

// close removes what a run, however it ended, may have left.
func (r *runtime) close() {
	for _, id := range []string{"x", longLived} {
		_ = r.command("delete", "--force", id).Run()
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + r.cgroup) // runc leaves parents that it made
	for _, dir := range append(left, "/sys/fs/cgroup"+r.cgroup) {
		_ = os.Remove(dir)
	}
}
