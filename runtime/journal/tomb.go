package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	tombSuffix    = ".json"
	tombTemporary = ".tmp-"
	quarantineDir = "quarantine"
)

// Tomb remembers pods on disk across a reboot, one JSON file a pod: what a CNI
// DEL needs, and the exits that the kubelet will ask for. It is written by rename
// and without fsync: losing the last moments before a power cut is cheaper than
// a disk flush on every start. Its methods may be called at the same time.
type Tomb struct{ dir string }

// OpenTomb makes the directory if need be, and sweeps what a crash in the middle
// of a write has left.
func OpenTomb(dir string) (*Tomb, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open tomb: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open tomb: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tombTemporary) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("sweep tomb: %w", err)
			}
		}
	}
	return &Tomb{dir: dir}, nil
}

// Path returns the file of a pod, which need not exist. The id becomes a file
// name, so it must be letters, digits, '-', '_' and '.', not first.
func (t *Tomb) Path(podID string) (string, error) {
	ok := podID != "" && podID[0] != '.' && len(podID) <= 128
	for _, c := range podID {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.", c))
	}
	if !ok {
		return "", fmt.Errorf("pod id %q: want letters, digits, '-', '_', '.', at most 128", podID)
	}
	return filepath.Join(t.dir, podID+tombSuffix), nil
}

// Write replaces the record of a pod by v, as JSON. v should be a struct: only an
// object in braces shows when it was cut short.
func (t *Tomb) Write(podID string, v any) error {
	path, err := t.Path(podID)
	if err != nil {
		return fmt.Errorf("write tomb: %w", err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write tomb of pod %s: %w", podID, err)
	}
	if err := t.replace(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write tomb of pod %s: %w", podID, asFull(err))
	}
	return nil
}

func (t *Tomb) replace(path string, data []byte) error {
	f, err := os.CreateTemp(t.dir, tombTemporary)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		os.Remove(f.Name())
		return err
	}
	return nil
}

// Read unmarshals the record of a pod into v. The errors are [fs.ErrNotExist]
// and [CorruptError].
func (t *Tomb) Read(podID string, v any) error {
	path, err := t.Path(podID)
	if err != nil {
		return fmt.Errorf("read tomb: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read tomb: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return &CorruptError{Path: path, Err: err}
	}
	return nil
}

// List returns the ids of all pods with a record, sorted.
func (t *Tomb) List() ([]string, error) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil, fmt.Errorf("list tomb: %w", err)
	}
	var ids []string
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), tombSuffix)
		if ok && e.Type().IsRegular() && !strings.HasPrefix(id, ".") {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Remove deletes the record of a pod; one that is not there is fine.
func (t *Tomb) Remove(podID string) error {
	path, err := t.Path(podID)
	if err != nil {
		return fmt.Errorf("remove tomb: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove tomb: %w", err)
	}
	return nil
}

// Quarantine moves a bad file, a pod's record or a journal ([CorruptError].Path),
// into the tomb's quarantine, for a person to look at, and returns its new name.
// A journal comes from another file system and is copied.
func (t *Tomb) Quarantine(path string) (string, error) {
	dir := filepath.Join(t.dir, quarantineDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("quarantine %s: %w", path, err)
	}
	// Every journal is called "journal": its directory tells the pod.
	name := filepath.Base(filepath.Dir(path)) + "-" + filepath.Base(path)
	to := filepath.Join(dir, name)
	for i := 1; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = filepath.Join(dir, fmt.Sprintf("%s.%d", name, i))
	}
	err := os.Rename(path, to)
	if errors.Is(err, unix.EXDEV) {
		err = move(path, to)
	}
	if err != nil {
		return "", fmt.Errorf("quarantine %s: %w", path, err)
	}
	return to, nil
}

// move copies a file and deletes the first.
func move(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		os.Remove(to)
		return err
	}
	return os.Remove(from)
}
