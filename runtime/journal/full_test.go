package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// fullEnv makes the test binary run fillUp in the directory it names.
const fullEnv = "CRI_MINI_TEST_FULL"

// TestFull fills a small tmpfs, in a process with a mount namespace of its own.
func TestFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a small tmpfs in a mount namespace of its own")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fullEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func fillUp(dir string) int {
	err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k")
	}
	for _, step := range []func(string) error{undoOnFull, createOnFull, compactOnFull, tornOnFull} {
		if err == nil {
			err = step(dir)
		}
		for _, f := range mustGlob(dir) {
			os.RemoveAll(f)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func mustGlob(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	return names
}

// hog takes all the room there is.
func hog(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "hog"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return nil
}

func obj(i int) plan.Object {
	return plan.Object{Kind: plan.Dir, Name: fmt.Sprintf("/some/dir/%d", i), Data: json.RawMessage(`{"pid":12345}`)}
}

func intendUntilFull(j *Journal) (int, error) {
	for i := 0; ; i++ {
		if err := j.Intend(obj(i)); err != nil {
			return i, err
		}
	}
}

// undoOnFull: when no new object is taken, states and exits are, and every object
// can be released; also by the daemon's successor.
func undoOnFull(dir string) error {
	j, err := Create(filepath.Join(dir, "journal"), "pod1")
	if err != nil {
		return err
	}
	n, err := intendUntilFull(j)
	if n < 100 || !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "no space left for the journal") {
		return fmt.Errorf("undo on full: %d intents, then %w", n, err)
	}
	if err := hog(dir); err != nil {
		return err
	}
	if err := j.Note("state", "pod1", strings.Repeat("x", 1000)); err != nil {
		return fmt.Errorf("undo on full: %w", err)
	}
	if err := j.Close(); err != nil {
		return err
	}
	if j, err = Open(j.Path()); err != nil {
		return err
	}
	if err := j.Note("exit", "c1", strings.Repeat("x", 1000)); err != nil {
		return fmt.Errorf("undo on full, after restart: %w", err)
	}
	if err := j.Undo(context.Background(), "", func(context.Context, plan.Object) error { return nil }); err != nil {
		return fmt.Errorf("undo on full: %w", err)
	}
	if j, err = Open(j.Path()); err != nil {
		return err
	}
	if left := j.Live(""); len(left) != 0 {
		return fmt.Errorf("undo on full: %d objects left", len(left))
	}
	return j.Remove()
}

// createOnFull: a refused journal leaves no file.
func createOnFull(dir string) error {
	if err := hog(dir); err != nil {
		return err
	}
	path := filepath.Join(dir, "journal")
	if _, err := Create(path, "pod1"); !errors.Is(err, ErrFull) {
		return fmt.Errorf("create on full: %w, want ErrFull", err)
	}
	if _, err := os.Stat(path); err == nil {
		return errors.New("create on full: a file is left")
	}
	return nil
}

// compactOnFull: dead records make room for a record that does not fit in what
// is left, as long as the copy of the live ones does.
func compactOnFull(dir string) error {
	j, err := Create(filepath.Join(dir, "journal"), "pod1")
	if err != nil {
		return err
	}
	for i := range 300 {
		if err := errors.Join(j.Intend(obj(i)), j.Release(obj(i))); err != nil {
			return err
		}
	}
	if j.dead() < 40<<10 {
		return fmt.Errorf("compact on full: only %d dead bytes", j.dead())
	}
	spare := filepath.Join(dir, "spare")
	if err := os.WriteFile(spare, make([]byte, 16<<10), 0o600); err != nil {
		return err
	}
	if err := errors.Join(hog(dir), os.Remove(spare)); err != nil {
		return err
	}
	if err := j.Note("config", "c1", strings.Repeat("x", 32<<10)); err != nil {
		return fmt.Errorf("compact on full: %w", err)
	}
	if j.dead() != 0 {
		return fmt.Errorf("compact on full: %d dead bytes left", j.dead())
	}
	return j.Remove()
}

// tornOnFull: cutting off a torn tail gives the reserve back, so that the
// releases may have no room; they are tried, what fits is written.
func tornOnFull(dir string) error {
	j, err := Create(filepath.Join(dir, "journal"), "pod1")
	if err != nil {
		return err
	}
	if err := errors.Join(j.Intend(obj(1)), j.Close()); err != nil {
		return err
	}
	data, err := os.ReadFile(j.Path())
	if err != nil {
		return err
	}
	if err := os.WriteFile(j.Path(), append(data, "0123"...), 0o600); err != nil {
		return err
	}
	if err := hog(dir); err != nil {
		return err
	}
	if j, err = Open(j.Path()); err != nil {
		return err
	}
	if err := j.Intend(obj(2)); !errors.Is(err, ErrFull) {
		return fmt.Errorf("torn on full: %w, want ErrFull", err)
	}
	if err := j.Release(obj(1)); err != nil {
		return fmt.Errorf("torn on full: %w", err)
	}
	if data, err = os.ReadFile(j.Path()); err != nil || bytes.Count(data, []byte("\n")) != 3 {
		return fmt.Errorf("torn on full: %w, file %q", err, data)
	}
	return j.Remove()
}
