package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listDirs reads the names of the directories in dir.
func listDirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// JoinFile is a file that a task writes "0" into to enter a cgroup.
type JoinFile struct {
	Controller string // one of the hierarchy's; "" for v2
	Path       string
}

// JoinFiles returns what the first task of a container writes "0" into, in this
// order. On v1 that is `tasks` of each hierarchy with memory last: a write there
// costs 20 µs, where one to cgroup.procs may wait 10 ms for an RCU grace period.
//
// On a pure v2 machine it is cgroup.procs, at that price; cloning the task into
// CloneDir costs nothing and makes JoinFiles needless. On a hybrid machine the
// v2 cgroup is not in the list: without CloneDir its hugetlb limits do not hold
// for the task, and Kill falls back on v1 means.
func (t *Tree) JoinFiles(path string) []JoinFile {
	if t.pure {
		return []JoinFile{{Path: t.v2.dir(path) + "/cgroup.procs"}}
	}
	var files []JoinFile
	for _, h := range t.list {
		if !h.v2 {
			files = append(files, JoinFile{Controller: h.controllers[0], Path: h.dir(path) + "/tasks"})
		}
	}
	return files
}

// Enter moves a process into the cgroup in every hierarchy, with all its threads.
func (t *Tree) Enter(path string, pid int) error {
	if err := checkPath(path); err != nil {
		return err
	}
	for _, h := range t.list {
		if err := writeFile(h.dir(path), "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", path, err)
		}
	}
	return nil
}

// FreezerDir is the directory through which the cgroup is frozen, "" where it
// cannot be; v2 says that it is one of the v2 hierarchy.
func (t *Tree) FreezerDir(path string) (dir string, v2 bool) {
	switch freezer := t.find("freezer"); {
	case checkPath(path) != nil:
	case freezer != nil:
		return freezer.dir(path), false
	case t.pure:
		return t.v2.dir(path), true
	}
	return "", false
}

// CloneDir opens the directory to give to clone3(2) with CLONE_INTO_CGROUP. It
// returns nil without an error on a machine that has no v2 hierarchy.
func (t *Tree) CloneDir(path string) (*os.File, error) {
	path, err := locate(path)
	if err != nil || t.v2 == nil {
		return nil, err
	}
	return os.OpenFile(t.v2.dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// Exists reports whether the cgroup is there in any hierarchy.
func (t *Tree) Exists(path string) bool {
	path, err := locate(path)
	return err == nil && slices.ContainsFunc(t.list, func(h *hierarchy) bool { return exists(h.dir(path)) })
}

// Procs returns the processes in the cgroup and in those below it, each once, in
// order. An absent cgroup has none. Processes that our PID namespace does not
// show are left out.
func (t *Tree) Procs(path string) ([]int, error) {
	path, err := locate(path)
	if err != nil {
		return nil, err
	}
	return procs(t.main().dir(path))
}

func procs(dir string) ([]int, error) {
	var pids []int
	err := walk(dir, func(dir string) error {
		text, err := readFile(dir, "cgroup.procs")
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil // a threaded cgroup; its domain lists the processes
		}
		for field := range strings.FieldsSeq(text) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return err
	})
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// walk visits dir and the cgroups below it, children after their parent. What
// vanishes meanwhile is passed over.
func walk(dir string, visit func(dir string) error) error {
	if err := visit(dir); err != nil {
		return ignoreAbsent(err)
	}
	names, err := subdirs(dir)
	if err != nil {
		return ignoreAbsent(err)
	}
	for _, name := range names {
		if err := walk(dir+"/"+name, visit); err != nil {
			return err
		}
	}
	return nil
}

// ignoreAbsent drops the errors that say that a cgroup is gone: ENODEV is what
// an open file gives whose cgroup was removed; the last two say that there can
// never have been one: the path is too long, or leads through a file.
func ignoreAbsent(err error) error {
	for _, gone := range []error{fs.ErrNotExist, unix.ENODEV, unix.ENAMETOOLONG, unix.ENOTDIR} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// ended returns the reason why a context ended, or nil while it has not.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// listFiles returns the names in dir that begin with prefix.
func listFiles(dir, prefix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}
