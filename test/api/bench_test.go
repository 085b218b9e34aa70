package api

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// benchPods is the node that the figures are told for.
const benchPods = 100

// cpu is what the daemon has used, in steps of 10 ms.
func (n *node) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID()))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	var user, system int64
	if f := strings.Fields(rest); len(f) > 12 { // proc_pid_stat(5): utime and stime, in ticks
		user, _ = strconv.ParseInt(f[11], 10, 64)
		system, _ = strconv.ParseInt(f[12], 10, 64)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// BenchmarkNode asks a node of 100 pods with a container each for everything at once, and looks what the daemon uses
// when nobody asks: go test -run '^$' -bench Node ./test/api
func BenchmarkNode(b *testing.B) {
	n := start(b)
	for i := range benchPods {
		n.runPod(fmt.Sprint("pod", i), func(c *criapi.PodSandboxConfig) { c.Linux.CgroupParent = "" }).run("main", "", idle)
	}
	ctx := context.Background()
	for _, call := range []struct {
		name string
		call func() error
	}{
		{"ListPodSandbox", func() error { _, err := n.Runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{}); return err }},
		{"ListContainers", func() error { _, err := n.Runtime.ListContainers(ctx, &criapi.ListContainersRequest{}); return err }},
		{"ListContainerStats", func() error {
			_, err := n.Runtime.ListContainerStats(ctx, &criapi.ListContainerStatsRequest{})
			return err
		}},
		{"ListPodSandboxStats", func() error {
			_, err := n.Runtime.ListPodSandboxStats(ctx, &criapi.ListPodSandboxStatsRequest{})
			return err
		}},
		{"ListPodSandboxMetrics", func() error {
			_, err := n.Runtime.ListPodSandboxMetrics(ctx, &criapi.ListPodSandboxMetricsRequest{})
			return err
		}},
	} {
		b.Run(call.name, func(b *testing.B) {
			before := n.cpu()
			for b.Loop() {
				if err := call.call(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((n.cpu()-before).Microseconds())/float64(b.N), "daemon-µs/op")
		})
	}
	b.Run("Idle", func(b *testing.B) {
		const during = 10 * time.Second
		var used time.Duration
		for b.Loop() {
			before := n.cpu()
			time.Sleep(during)
			used += n.cpu() - before
		}
		b.ReportMetric(100*used.Seconds()/float64(b.N)/during.Seconds(), "%core")
		b.ReportMetric(0, "ns/op")
		if log := n.LogTail(50); strings.Contains(log, "level=ERROR") {
			b.Errorf("the log has errors:\n%s", log)
		}
	})
}
