// Command run has an OCI runtime judged by the validation programs of
// github.com/opencontainers/runtime-tools: each is a program of its own that
// makes containers and prints what it found as TAP. It runs them on a machine of
// their own (test/private), prints a line for each, and compares what failed with
// expected.txt. It exits with 0 only if that is the same.
//
//	go run ./run                          # all programs, mini-runc from ../../bin
//	go run ./run --focus 'hooks'          # some programs
//	go run ./run --runtime /usr/bin/crun --expected ''
//	go run ./run build                    # only build; prints where
//
// The programs are of 2019 and know version 1.0.2 of the specification, while
// mini-runc follows 1.3.0: expected.txt names, for each test that fails, the line
// of 1.3.0 that it contradicts, or what this machine lacks.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// job is what the run inside of test/private needs to know.
type job struct {
	Programs string // directory that build made
	Runtime  string
	Focus    string
	Expected string // file; empty: nothing is compared
	Spec     string // directory of the specification's text
	Verbose  bool
	Parallel int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	run := start
	if len(os.Args) == 3 && os.Args[1] == "inside" {
		run = inside
	}
	if err := run(ctx); err != nil {
		if !errors.Is(err, errJudged) {
			fmt.Fprintln(os.Stderr, "oci:", err)
		}
		os.Exit(1)
	}
}

// errJudged is a failure that was printed already.
var errJudged = errors.New("not as expected")

func start(ctx context.Context) error {
	var j job
	flag.StringVar(&j.Runtime, "runtime", "../../bin/mini-runc", "the runtime to judge")
	flag.StringVar(&j.Focus, "focus", "", "run only the programs whose names match this regular expression")
	flag.StringVar(&j.Expected, "expected", "expected.txt", "file that lists what may fail; empty: only print")
	flag.BoolVar(&j.Verbose, "v", false, "print all that each failing program says")
	flag.IntVar(&j.Parallel, "parallel", 8, "programs at a time; most of their time they sleep")
	flag.Parse()
	module, err := moduleDir(ctx)
	if err != nil {
		return err
	}
	if j.Programs, err = build(ctx, module); err != nil {
		return err
	}
	if flag.Arg(0) == "build" {
		fmt.Println(j.Programs)
		return nil
	}
	if j.Runtime, err = executable(j.Runtime); err != nil {
		return err
	}
	if j.Expected != "" {
		if j.Expected, err = filepath.Abs(j.Expected); err != nil {
			return err
		}
	}
	// The product's go.mod has the version that mini-runc follows.
	if j.Spec, err = goTool(ctx, filepath.Join(module, "../.."), "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec"); err != nil {
		return err
	}
	return again(ctx, j, filepath.Join(module, "../private"))
}

// executable finds a program and makes its path absolute.
func executable(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find runtime: %w; build it first, or name it with --runtime", err)
	}
	return filepath.Abs(path)
}

// again runs this program once more as on a machine of its own.
func again(ctx context.Context, j job, private string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, private, self, "inside", string(text))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it cleans up
	cmd.WaitDelay = time.Minute
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errJudged
	}
	return err
}

func inside(ctx context.Context) error {
	var j job
	if err := json.Unmarshal([]byte(os.Args[2]), &j); err != nil {
		return fmt.Errorf("decode job: %w", err)
	}
	focus, err := regexp.Compile(j.Focus)
	if err != nil {
		return fmt.Errorf("--focus: %w", err)
	}
	var excused []excuse
	if j.Expected != "" {
		text, err := os.ReadFile(j.Expected)
		if err == nil {
			excused, err = parseExpected(string(text))
		}
		if err == nil {
			err = checkReferences(excused, j.Spec)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", j.Expected, err)
		}
	}
	names, err := programs(j.Programs, focus)
	if err != nil {
		return err
	}
	began := time.Now()
	results, err := j.runAll(ctx, os.Getenv("SCRATCH"), names)
	if err != nil {
		return err
	}
	return report(j, results, excused, time.Since(began))
}

// report prints a line for each program and what is not as expected.
func report(j job, results []result, excused []excuse, took time.Duration) error {
	passed, as, wrong := 0, 0, 0
	listed := " as listed"
	if j.Expected == "" {
		listed = ""
	}
	for _, r := range results {
		complaints := []string{}
		if j.Expected != "" {
			complaints = compare(r, find(excused, r.name))
		}
		switch {
		case len(complaints) > 0:
			wrong++
			fmt.Printf("%-36s NOT AS EXPECTED  %s\n", r.name, r.took.Round(100*time.Millisecond))
			for _, c := range complaints {
				fmt.Println("    " + c)
			}
		case len(r.fails) == 0:
			passed++
			fmt.Printf("%-36s ok, %d tests  %s\n", r.name, r.tests, r.took.Round(100*time.Millisecond))
		default:
			as++
			fmt.Printf("%-36s fails%s, %d of %d tests  %s\n", r.name, listed, len(r.fails), r.tests, r.took.Round(100*time.Millisecond))
		}
		if j.Verbose && len(r.fails) > 0 {
			for _, f := range r.fails {
				fmt.Println("    fails: " + f)
			}
			fmt.Printf("%s\n", bytes.TrimSpace(r.output))
		}
	}
	fmt.Printf("validation programs of runtime-tools: %d passed, %d fail%s, %d not as expected, %s\n",
		passed, as, listed, wrong, took.Round(time.Second))
	if wrong > 0 {
		return errJudged
	}
	return nil
}
