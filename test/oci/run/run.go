package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// patience is for one program. The slowest, which waits for things that never
// come, takes half a minute.
const patience = 3 * time.Minute

// result is what one program found.
type result struct {
	name   string
	tests  int
	fails  []string // descriptions of tests that failed, and other ends than a good one
	took   time.Duration
	output []byte
}

// runAll runs programs side by side, but those that use the same cgroup one after
// the other.
func (j job) runAll(ctx context.Context, scratch string, names []string) ([]result, error) {
	wrapper := filepath.Join(scratch, "runtime")
	// The programs know no --root, and the runtime's own is not in our namespaces.
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' --root '%s/root' \"$@\"\n", j.Runtime, os.Getenv("RUN"))
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		return nil, err
	}
	// linux_cgroups_network wants two interfaces, and takes the second whatever it is.
	if out, err := exec.CommandContext(ctx, "ip", "link", "add", "eth0", "type", "bridge").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make an interface: %w: %s", err, out)
	}
	results := make([]result, len(names))
	errs := make([]error, len(names))
	free := make(chan struct{}, j.Parallel)
	var cgroup sync.Mutex
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			if sharesCgroup(name) {
				cgroup.Lock()
				defer cgroup.Unlock()
			}
			free <- struct{}{}
			defer func() { <-free }()
			results[i], errs[i] = j.runOne(ctx, filepath.Join(scratch, name), wrapper, name)
		})
	}
	all.Wait()
	return results, errors.Join(errs...)
}

// sharesCgroup knows the programs that take the fixed path /cgrouptest.
func sharesCgroup(name string) bool {
	return strings.HasPrefix(name, "linux_cgroups_") || strings.HasPrefix(name, "delete_")
}

func (j job) runOne(ctx context.Context, dir, wrapper, name string) (result, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(j.Programs, "bin", name))
	cmd.Dir = j.Programs // where they look for the root file system
	cmd.Env = append(os.Environ(), "RUNTIME="+wrapper, "TMPDIR="+dir)
	cmd.WaitDelay = time.Second // a container that was left has its streams
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	r := judge(name, out.String(), err)
	r.took = time.Since(began)
	r.output = append(out.Bytes(), errs.Bytes()...)
	return r, nil
}
