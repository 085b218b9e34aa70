package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkCommands prints the median time of each command for a container that runs `true`, in milliseconds. With
// MINI_RUNC_PEER=/path/to/runc another runtime does the same beside it, turn by turn.
func BenchmarkCommands(b *testing.B) {
	runtimes := []string{filepath.Join(programs, "mini-runc")}
	if peer := os.Getenv("MINI_RUNC_PEER"); peer != "" {
		runtimes = append(runtimes, peer)
		b.Cleanup(func() { // runc leaves the parents that it had to make
			left, _ := filepath.Glob("/sys/fs/cgroup/*" + ours)
			for _, dir := range left {
				_ = os.Remove(dir)
			}
		})
	}
	bundle := newBundle(b, "")
	bundle.spec.Process.Args = []string{"/bin/busybox", "true"}
	bundle.write()
	took := map[string][]float64{}
	step := func(runtime string, args ...string) {
		cmd := exec.Command(runtime, append([]string{"--root", bundle.root}, args...)...)
		cmd.Dir = bundle.dir
		began := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatal(runtime, args, err)
		}
		name := filepath.Base(runtime) + "-" + args[0] + "-ms"
		took[name] = append(took[name], float64(time.Since(began))/1e6)
	}
	for b.Loop() {
		for _, runtime := range runtimes {
			step(runtime, "run", "x")
			step(runtime, "create", "x")
			step(runtime, "start", "x")
			step(runtime, "state", "x")
			for stopped(runtime, bundle) != nil {
				time.Sleep(time.Millisecond)
			}
			step(runtime, "delete", "x")
		}
	}
	for name, times := range took {
		slices.Sort(times)
		b.ReportMetric(times[len(times)/2], name)
	}
}

// stopped is nil once it is: `true` may not have ended when start returns, and then runc refuses to delete it.
func stopped(runtime string, b *bundleDir) error {
	cmd := exec.Command("sh", "-c", runtime+" --root "+b.root+" state x | grep -q stopped")
	return cmd.Run()
}
