package crash

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/cri-mini/cri-mini/test/testbed"
)

// insideEnv is set where a test runs on its own machine: the directory with the programs and the image.
const insideEnv = "CRI_MINI_TEST_CRASH"

func TestMain(m *testing.M) {
	code := m.Run()
	if made.dir != "" {
		os.RemoveAll(made.dir)
	}
	os.Exit(code)
}

// private returns a node on a machine of its own, or nil when the test has run there: the caller returns then. Extra
// variables of the environment are for the run inside.
func private(t *testing.T, env ...string) *node {
	t.Helper()
	if dir := os.Getenv(insideEnv); dir != "" {
		return newNode(t, dir)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces, cgroups and containers")
	}
	t.Parallel()
	out, ok := runInside(t, env...)
	report(t, out, ok)
	return nil
}

// runInside runs the test that calls it, with what -run chose of its subtests, and gives what it printed.
func runInside(t *testing.T, env ...string) (string, bool) {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// bash stays PID 1 there, and reaps.
	cmd := exec.Command("../private", "bash", "-c", `"$@"; exit $?`, "crash", self, "-test.v", "-test.timeout=9m", "-test.run="+chosen(t.Name()))
	cmd.Env = append(append(os.Environ(), insideEnv+"="+dir), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// chosen is the -run pattern for one test: with the subtests that the caller of go test named.
func chosen(name string) string {
	pattern := "^" + name + "$"
	for i, arg := range os.Args {
		value, ok := strings.CutPrefix(arg, "-test.run=")
		if !ok && arg == "-test.run" && i+1 < len(os.Args) {
			value, ok = os.Args[i+1], true
		}
		if _, sub, found := strings.Cut(value, "/"); ok && found {
			return pattern + "/" + sub
		}
	}
	return pattern
}

var (
	failedLine = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	statedLine = regexp.MustCompile(`(?m)^\s+\S+\.go:\d+: (= .*)$`)
)

// report repeats what the run inside said: all of it when it failed, with each failed subtest as one of ours, so that
// what can be run again has its name; else the figures, which begin with "= ".
func report(t *testing.T, out string, ok bool) {
	t.Helper()
	for _, m := range statedLine.FindAllStringSubmatch(out, -1) {
		fmt.Printf("%s: %s\n", t.Name(), m[1][2:])
	}
	if ok {
		return
	}
	t.Errorf("on its own machine:\n%s", out)
	for _, m := range failedLine.FindAllStringSubmatch(out, -1) {
		if sub, found := strings.CutPrefix(m[1], t.Name()+"/"); found && !strings.Contains(sub, "/") {
			t.Run(sub, func(t *testing.T) { t.Error(again(t)) })
		}
	}
	if !t.Failed() {
		return
	}
	t.Log(again(t))
}

// again is the one command that runs a test again.
func again(t testing.TB) string {
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return fmt.Sprintf("again: sudo env PATH=$PATH go test -count=1 -run '%s' ./test/crash", strings.Join(parts, "/"))
}

// made is what all tests share: static programs and an image, built once.
var made struct {
	once sync.Once
	dir  string
	err  error
}

func programs() (string, error) {
	made.once.Do(func() {
		if made.dir, made.err = os.MkdirTemp("", "cri-mini-crash-"); made.err != nil {
			return
		}
		made.err = errors.Join(testbed.Programs(made.dir, "cri-mini", "cri-mini-init"), writeImage(filepath.Join(made.dir, "image.tar")))
	})
	return made.dir, made.err
}

// lastLines gives the end of a file.
func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var lines []string
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			lines = append(lines, string(bytes.TrimRight(line, "\n")))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err.Error()
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
