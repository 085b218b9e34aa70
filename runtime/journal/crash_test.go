package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// walkEnv makes the test binary walk in the directory it names, and nothing else.
const walkEnv = "CRI_MINI_TEST_WALK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(walkEnv); dir != "" {
		if err := walk(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(fullEnv); dir != "" {
		os.Exit(fillUp(dir))
	}
	os.Exit(m.Run())
}

func makeDir(o plan.Object) error { return os.Mkdir(o.Name, 0o700) }
func unmakeDir(_ context.Context, o plan.Object) error {
	if err := os.Remove(o.Name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// walk makes and unmakes directories, nested so that only the reverse order
// works, as a pod that starts and stops would.
func walk(dir string) error {
	j, err := Create(filepath.Join(dir, "journal"), "pod1")
	if err != nil {
		return err
	}
	for _, o := range nest(dir) {
		if err := errors.Join(j.Intend(o), makeDir(o)); err != nil {
			return err
		}
	}
	if err := j.Note("state", "pod1", "ready"); err != nil {
		return err
	}
	if err := j.Undo(context.Background(), "", unmakeDir); err != nil {
		return err
	}
	return j.Remove()
}

func nest(dir string) []plan.Object {
	var objs []plan.Object
	name := dir
	for _, n := range []string{"a", "b", "c"} {
		name = filepath.Join(name, n)
		objs = append(objs, plan.Object{Kind: plan.Dir, Name: name, Data: json.RawMessage(`{}`)})
	}
	return objs
}

// runWalk runs the walk in a process that dies at a point ("" for never), and
// returns the lines of the count file.
func runWalk(t *testing.T, dir, at string) []string {
	t.Helper()
	count := filepath.Join(t.TempDir(), "count")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), walkEnv+"="+dir, crashEnv+"="+at, crashCountEnv+"="+count)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if killed := status.Signaled() && status.Signal() == syscall.SIGKILL; killed != (at != "") || !killed && err != nil {
		t.Fatalf("crash %q: %v\n%s", at, err, &out)
	}
	data, err := os.ReadFile(count)
	must(t, err)
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// TestCrashAtEveryRecord kills a process around every record it writes; the next
// one finds in the journal all that was made, and undoes it.
func TestCrashAtEveryRecord(t *testing.T) {
	points := runWalk(t, t.TempDir(), "")
	if want := 1 + 3 + 1 + 3; len(points) != want {
		t.Fatalf("%d records, want %d: %q", len(points), want, points)
	}
	for i, point := range points {
		for _, when := range []string{"before", "after"} {
			dir := t.TempDir()
			at := fmt.Sprintf("%s:%d", when, i+1)
			if n := len(runWalk(t, dir, at)); n != i+1 {
				t.Errorf("crash %s: counted %d", at, n)
			}
			if err := recoverWalk(dir); err != nil {
				t.Errorf("crash %s (%s): %v", at, point, err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("crash %s (%s) leaves %v", at, point, left)
			}
		}
	}
}

// recoverWalk is what a daemon does when it starts.
func recoverWalk(dir string) error {
	path := filepath.Join(dir, "journal")
	j, err := Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		os.Remove(path)
		return nil
	}
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, o := range j.Live("") {
		live[o.Name] = true
	}
	for _, o := range nest(dir) {
		if _, err := os.Stat(o.Name); err == nil && !live[o.Name] {
			return fmt.Errorf("%s exists and is not in the journal", o.Name)
		}
	}
	if err := j.Undo(context.Background(), "", unmakeDir); err != nil {
		return err
	}
	return j.Remove()
}

func TestCrashPointMustBeWellFormed(t *testing.T) {
	for _, at := range []string{"before", "before:0", "between:1", "after:x", "after:-1"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", at)
				}
			}()
			newCrashPoint(at, "")
		}()
	}
}
