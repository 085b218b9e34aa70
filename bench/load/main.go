// Command load is a CRI client that measures. It runs pods over the socket of
// any runtime as the kubelet would, and reports each RPC's median and 99th
// percentile, rates, and the memory of the daemon and its helpers.
//
//	load -endpoint unix:///run/cri-mini/cri-mini.sock -image busybox -runs 100
//
// It imports nothing of this module: what it measures of another runtime is
// measured alike. The image must have sh, sleep and true. Pods carry the label
// cri-mini-bench and are removed at the end, also after a failure.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	endpoint string
	image    string
	modes    string
	runs     int
	workers  int
	pods     int
	cgroup   string
	handler  string
	hostNet  bool
	daemon   int
	asJSON   bool
	jsonFile string
}

func main() {
	var o options
	flag.StringVar(&o.endpoint, "endpoint", "unix:///run/cri-mini/cri-mini.sock", "the runtime's socket")
	flag.StringVar(&o.image, "image", "localhost/cri-mini-bench:1", "image; pulled when absent")
	flag.StringVar(&o.modes, "modes", "serial,parallel,updown,exec,parallel-exec", "what to measure, in this order")
	flag.IntVar(&o.runs, "runs", 50, "life cycles, and ten times as many execs, in each mode")
	flag.IntVar(&o.workers, "workers", 10, "callers at a time in the parallel modes")
	flag.IntVar(&o.pods, "pods", 50, "pods in mode updown")
	flag.StringVar(&o.cgroup, "cgroup", "/cri-mini-bench", "cgroup parent of the pods")
	flag.StringVar(&o.handler, "handler", "", "runtime handler")
	flag.BoolVar(&o.hostNet, "host-network", false, "pods without a network of their own")
	flag.IntVar(&o.daemon, "daemon-pid", 0, "process whose memory to report, with its helpers")
	flag.BoolVar(&o.asJSON, "json", false, "print JSON in place of the table")
	flag.StringVar(&o.jsonFile, "json-file", "", "write JSON there too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// report is all that was measured.
type report struct {
	Runtime string    `json:"runtime"`
	Image   string    `json:"image"`
	Began   time.Time `json:"began"`
	Modes   []*result `json:"modes"`
	Memory  []memory  `json:"memory,omitempty"`
}

func run(ctx context.Context, o options) (err error) {
	names := strings.Split(o.modes, ",")
	for _, name := range names {
		if modes[name] == nil {
			return fmt.Errorf("read -modes: unknown mode %q", name)
		}
	}
	if o.runs < 1 || o.workers < 1 || o.pods < 1 {
		return fmt.Errorf("read flags: runs, workers and pods must be at least 1")
	}
	c, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer c.close()
	r := report{Runtime: c.version, Image: o.image, Began: time.Now()}
	if err := c.needImage(ctx); err != nil {
		return err
	}
	r.remember(o, 0)
	for _, name := range names {
		res := newResult(name)
		began := time.Now()
		if err := modes[name](ctx, c, res, &r); err != nil {
			return fmt.Errorf("mode %s: %w", name, err)
		}
		res.finish(time.Since(began))
		r.Modes = append(r.Modes, res)
	}
	return r.print(o)
}

func (r *report) print(o options) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if o.jsonFile != "" {
		if err := os.WriteFile(o.jsonFile, append(data, '\n'), 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	if o.asJSON {
		fmt.Println(string(data))
		return nil
	}
	fmt.Printf("%s, image %s\n", r.Runtime, r.Image)
	for _, m := range r.Modes {
		m.print(os.Stdout)
	}
	for _, m := range r.Memory {
		fmt.Println(m)
	}
	return nil
}

// remember notes the memory of the daemon while so many pods are up.
func (r *report) remember(o options, pods int) {
	if o.daemon == 0 {
		return
	}
	r.Memory = append(r.Memory, measureMemory(o.daemon, pods))
}
