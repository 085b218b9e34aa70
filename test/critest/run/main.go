// Command run builds critest of cri-tools and what it needs, runs it against
// a runtime, prints every spec by name, and compares the failures with the
// ones that are expected. It exits with 0 only if they are the same.
//
//	go run ./run                                   # all specs, cri-mini from ../../bin
//	go run ./run --focus 'image status'            # some specs
//	go run ./run --daemon 'cri-mini serve --config {config}'
//	go run ./run --runtime-endpoint unix:///run/x.sock   # a runtime that runs already
//	go run ./run --here                            # on a machine of the run's own, as test/node has
//	go run ./run build                             # only build; prints the paths
//
// A daemon that it starts gets namespaces of its own, shared with critest and
// the registry: mount (with / made rshared, as on a node), network, PID, IPC,
// UTS and cgroup. Whatever the daemon leaves ends with them; what that was is
// printed. A daemon that runs already must have the registry's certs.d itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cri-mini/cri-mini/test/critest/images"
)

// job is everything that a run needs to know; it crosses from stage to stage
// (stages.go) as JSON.
type job struct {
	Tools     tools
	Daemon    []string // command with placeholders (config.go); empty: Endpoint runs already
	Template  string   // the daemon's configuration, with placeholders
	Driver    string   // of its cgroups; "" is the daemon's default
	Here      bool     // no namespaces of the run's own
	Again     string   // the command that runs a spec again, when --focus is put behind it
	Endpoint  string
	Focus     string
	Parallel  int
	WebSocket bool // exec, attach and portforward, in place of SPDY
	Timeout   time.Duration
	Report    string // directory for logs and reports
	Expected  string // file
	Update    bool
	Strict    bool
	Scratch   string // directory on disk: state, certs.d, temporary files
	RunDir    string // the daemon's run_dir
	Mounts    []cgroupMount
}

func init() {
	// Pdeathsig and namespaces belong to threads: the main goroutine, which
	// starts all stages, stays on the main one.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) == 3 {
		if stage, ok := stages[os.Args[1]]; ok {
			exit(stage(os.Args[2]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	exit(start(ctx))
}

// exit ends the program with an error's own code, if it has one.
func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	if code, ok := err.(exitCode); ok {
		os.Exit(int(code))
	}
	fmt.Fprintln(os.Stderr, "critest:", err)
	os.Exit(2)
}

// exitCode is an end whose reason was printed already.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func start(ctx context.Context) error {
	j := job{}
	daemon := flag.String("daemon", "../../bin/cri-mini serve --config {config}", "command that starts the daemon; {config} {run} {state} {socket} {certs} are replaced")
	template := flag.String("config-template", "", "file in place of cri-mini's configuration, with the same placeholders")
	prebuilt := flag.Bool("prebuilt", false, "use what the last build left in the cache; needs no Go")
	flag.StringVar(&j.Endpoint, "runtime-endpoint", "", "test the runtime behind this endpoint (unix://...) and start no daemon")
	flag.StringVar(&j.Driver, "cgroup-driver", "", "the daemon's cgroup driver, in place of its default")
	flag.BoolVar(&j.Here, "here", false, "run on this machine itself, which must be the run's own: no namespaces are made")
	flag.StringVar(&j.Again, "again", "go run ./run", "command to tell for running a failed spec again, before its --focus")
	flag.StringVar(&j.Focus, "focus", "", "run only the specs whose names match this regular expression")
	flag.IntVar(&j.Parallel, "parallel", 1, "specs to run at a time")
	flag.BoolVar(&j.WebSocket, "websocket", false, "stream by WebSocket in place of SPDY")
	flag.DurationVar(&j.Timeout, "timeout", 30*time.Minute, "limit for all specs together")
	flag.StringVar(&j.Report, "report", "", "directory for junit, JSON and logs (default: report in the cache)")
	flag.StringVar(&j.Expected, "expected", "expected.txt", "file that lists the specs that may fail")
	flag.BoolVar(&j.Update, "update", false, "write the expected file anew from this run")
	flag.BoolVar(&j.Strict, "strict", false, "fail if the daemon leaves anything behind once all pods are removed")
	flag.Parse()

	cache, err := images.CacheDir()
	if err != nil {
		return err
	}
	if j.Tools, err = findTools(ctx, cache, *prebuilt); err != nil {
		return err
	}
	if flag.Arg(0) == "build" {
		fmt.Print(j.Tools)
		return nil
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("read arguments: unknown word %q", flag.Arg(0))
	}
	if err := j.complete(cache, *daemon, *template); err != nil {
		return err
	}
	if j.Endpoint != "" {
		return j.withScratch(cache, func() error { return runSpecs(ctx, j, nil) })
	}
	if j.Here {
		return j.withScratch(cache, func() error { return runHere(ctx, j) })
	}
	return j.withScratch(cache, func() error { return runInNamespaces(ctx, j) })
}

// runHere is for what a namespace would hide from the daemon: systemd, and the
// root of the cgroups.
func runHere(ctx context.Context, j job) error {
	var err error
	if j.Mounts, err = findCgroups(); err != nil {
		return err
	}
	return runWithDaemon(ctx, j)
}

// complete fills in what has defaults and makes paths absolute.
func (j *job) complete(cache, daemon, template string) error {
	if j.Report == "" {
		j.Report = filepath.Join(cache, "report")
	}
	for _, p := range []*string{&j.Report, &j.Expected} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if j.Endpoint != "" {
		return nil
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("start daemon: needs root, for namespaces and cgroups; or give --runtime-endpoint")
	}
	j.Template = defaultConfig
	if j.Driver != "" {
		j.Template += fmt.Sprintf("\n[runtime]\ncgroup_driver = %q\n", j.Driver)
	}
	if template != "" {
		text, err := os.ReadFile(template)
		if err != nil {
			return err
		}
		j.Template = string(text)
	}
	j.Daemon = strings.Fields(daemon)
	if len(j.Daemon) == 0 {
		return fmt.Errorf("start daemon: --daemon is empty")
	}
	if strings.Contains(j.Daemon[0], "/") {
		abs, err := filepath.Abs(j.Daemon[0])
		if err != nil {
			return err
		}
		j.Daemon[0] = abs
		if _, err := os.Stat(abs); err != nil {
			return fmt.Errorf("start daemon: %w; build it first, or name it with --daemon", err)
		}
	}
	return nil
}

// withScratch gives the run its directories and removes them behind it, with
// those that killed runs left.
func (j *job) withScratch(cache string, run func() error) error {
	parent := filepath.Join(cache, "run")
	sweep(parent)
	j.Scratch = filepath.Join(parent, fmt.Sprint(os.Getpid()))
	j.RunDir = fmt.Sprintf("%s%d", runPrefix, os.Getpid())
	for _, dir := range []string{j.Scratch, j.RunDir, j.Report, filepath.Join(j.Scratch, "tmp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	defer os.RemoveAll(j.Scratch)
	defer os.RemoveAll(j.RunDir)
	return run()
}

const runPrefix = "/run/cri-mini-critest-"

// sweep removes the directories of runs whose process is gone.
func sweep(parent string) {
	old, _ := filepath.Glob(filepath.Join(parent, "*"))
	runs, _ := filepath.Glob(runPrefix + "*")
	for _, dir := range append(old, runs...) {
		pid := dir[strings.LastIndexAny(dir, "/-")+1:]
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			os.RemoveAll(dir)
		}
	}
}
