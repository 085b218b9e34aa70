package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// step is called at every point between two changes of the disk. Tests kill the process there.
var step = func() {}

// writeFileSynced writes a file under its final name only when it is whole and on disk.
func (s *Store) writeFileSynced(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(s.path("tmp"), "record-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	step()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	step()
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	step()
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncAll writes the store's whole file system back: one call instead of one fsync for each of an image's files.
func (s *Store) syncAll() error {
	if err := unix.Syncfs(int(s.lock.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", s.root, err)
	}
	return nil
}

// discard makes a path vanish at once and frees its space in the background. What a crash leaves in tmp goes at Open.
func (s *Store) discard(path string) error {
	tmp, err := os.MkdirTemp(s.path("tmp"), "gone-")
	if err != nil {
		return err
	}
	step()
	if err := os.Rename(path, filepath.Join(tmp, "x")); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	step()
	s.reap(tmp)
	return nil
}

// reap removes a directory of tmp in the background.
func (s *Store) reap(dir string) {
	s.background.Go(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.log.Error("remove leftover", "obj", dir, "err", err)
		}
	})
}

// bootID tells one run of the kernel from the next, random(4).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// TempFile makes a file without a name on the store's file system, open(2) O_TMPFILE: a crash leaves nothing of it.
func (s *Store) TempFile() (*os.File, error) {
	return os.OpenFile(s.path("tmp"), unix.O_TMPFILE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
}
