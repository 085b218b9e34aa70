package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// runDir is the run directory in the hands of this daemon.
type runDir struct {
	path string
	held []held // the directory, and the root of the tmpfs that we have mounted on it
}

const (
	// tmpfsSource names the tmpfs that a daemon mounts, in /proc/self/mountinfo: one of somebody else's is left alone.
	tmpfsSource = "cri-mini"
	// tmpfsOptions bound what journals and FIFOs may take.
	tmpfsOptions = "size=64m,mode=711"
)

// openRunDir takes the run directory and, where it is on no tmpfs, mounts one.
func openRunDir(path string, log *slog.Logger) (*runDir, error) {
	r := &runDir{path: path}
	if err := r.hold(); err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("find the file system of run_dir %s: %w", path, err), r.close())
	}
	if st.Type == unix.TMPFS_MAGIC {
		return r, nil
	}
	if err := r.mount(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	log.Info("run_dir is a tmpfs of our own, 64 MiB at most: the file system below is none", "obj", path)
	return r, nil
}

func (r *runDir) hold() error {
	h, err := hold("run_dir", r.path)
	if err == nil {
		r.held = append(r.held, h)
	}
	return err
}

func (r *runDir) mount() error {
	if err := unix.Mount(tmpfsSource, r.path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, tmpfsOptions); err != nil {
		return fmt.Errorf("mount tmpfs on run_dir %s: %w", r.path, err)
	}
	return r.hold()
}

// close gives the directory back. With pods in it, it stays for the next daemon; empty it goes, and a tmpfs of ours
// with it.
func (r *runDir) close() error {
	defer func() {
		for _, h := range r.held {
			h.release()
		}
	}()
	if !r.held[len(r.held)-1].is(r.path) {
		return nil // by now it leads to what is not ours
	}
	os.Remove(filepath.Join(r.path, pidFile))
	if entries, err := os.ReadDir(r.path); err != nil || len(entries) > 0 {
		return err
	}
	ours, err := isOurs(r.path)
	if err != nil {
		return fmt.Errorf("run_dir %s: %w", r.path, err)
	}
	if ours {
		if err := unix.Unmount(r.path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount run_dir %s: %w", r.path, err)
		}
		os.Remove(filepath.Join(r.path, pidFile)) // from before the mount
	}
	os.Remove(r.path) // unless it is a mount of somebody else's, or has something in it
	return nil
}

// isOurs tells whether the directory is a tmpfs that a daemon, of today or before, has mounted.
func isOurs(path string) (bool, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(real))
	if err != nil || len(mounts) == 0 {
		return false, err
	}
	m := mounts[len(mounts)-1] // the uppermost
	return m.FSType == "tmpfs" && m.Source == tmpfsSource, nil
}
