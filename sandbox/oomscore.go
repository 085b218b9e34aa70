package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// rescoreRounds bounds how often a container's processes are listed again because new ones were forked.
const rescoreRounds = 20

// rescore gives the processes of a container another oom_score_adj (proc_pid_oom_score_adj(5)). Those that have set
// one of their own keep it. A child forked meanwhile has its parent's, old or new: the list is taken until nobody in
// it has the old one.
func (m *Manager) rescore(c *Container, from, to int) error {
	if from == to {
		return nil
	}
	for range rescoreRounds {
		changed, err := m.rescoreOnce(c.cgroup(), from, to)
		if err != nil || !changed {
			return err
		}
	}
	return nil
}

func (m *Manager) rescoreOnce(path string, from, to int) (changed bool, err error) {
	pids, err := m.cfg.Cgroups.Procs(path)
	if err != nil {
		return false, fmt.Errorf("list processes for oom_score_adj: %w", err)
	}
	for some := range slices.Chunk(pids, rescoreBatch) {
		done, err := m.rescoreSome(path, some, from, to)
		if changed = changed || done; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// rescoreBatch is how many descriptors are open at once: a container may have more processes than we may have of them.
const rescoreBatch = 256

func (m *Manager) rescoreSome(path string, pids []int, from, to int) (changed bool, err error) {
	dirs := map[int]int{}
	defer func() {
		for _, fd := range dirs {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			dirs[pid] = fd
		} else if ignoreEnded(err) != nil {
			return false, fmt.Errorf("open process %d for oom_score_adj: %w", pid, err)
		}
	}
	// A pid that is still in the cgroup was the container's when it was opened; one that ends now leaves a directory
	// that refuses, not one of a stranger.
	after, err := m.cfg.Cgroups.Procs(path)
	if err != nil {
		return false, fmt.Errorf("list processes for oom_score_adj: %w", err)
	}
	for pid, dir := range dirs {
		if !slices.Contains(after, pid) {
			continue
		}
		done, err := rescoreProcess(dir, from, to)
		if err != nil {
			return changed, fmt.Errorf("set oom_score_adj of process %d to %d: %w", pid, to, err)
		}
		changed = changed || done
	}
	return changed, nil
}

// rescoreProcess reports whether it has changed the score. A process that has ended needs no other.
func rescoreProcess(dir, from, to int) (bool, error) {
	fd, err := unix.Openat(dir, "oom_score_adj", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, ignoreEnded(err)
	}
	defer unix.Close(fd)
	var b [16]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return false, ignoreEnded(err)
	}
	if now, err := strconv.Atoi(trimNewline(b[:n])); err != nil || now != from {
		return false, err
	}
	if _, err := unix.Pwrite(fd, []byte(strconv.Itoa(to)), 0); err != nil {
		return false, ignoreEnded(err)
	}
	return true, nil
}

func ignoreEnded(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
