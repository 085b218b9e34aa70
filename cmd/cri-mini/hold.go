package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// held is a directory that is this process's alone. The lock (flock(2)) is on the directory itself and not on a file in
// it: nothing need stay behind for the next one, and whoever comes by another path or bind mount meets it too.
type held struct{ dir *os.File }

// pidFile in the directory tells who has the lock. It says nothing while nobody has.
const pidFile = "pid"

// hold locks a directory, made if missing. The error names the key of the configuration and who has it.
func hold(key, path string) (held, error) {
	for {
		if err := os.MkdirAll(path, 0o711); err != nil {
			return held{}, fmt.Errorf("make %s: %w", key, err)
		}
		h, err := lock(key, path)
		if err != nil {
			return held{}, err
		}
		if h.is(path) {
			// Only the words of an error depend on it, and a daemon must start when the file system is full.
			_ = os.WriteFile(filepath.Join(path, pidFile), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644)
			return h, nil
		}
		_ = h.dir.Close() // the one before us was about to remove it
	}
}

// lingerLimit is how long the lock of a daemon that has ended may outlive it: a child that it was starting as it was
// killed has its descriptors until execve(2) closes them, and one that is starting has not written its pid yet.
const lingerLimit = 5 * time.Second

func lock(key, path string) (held, error) {
	f, err := os.Open(path)
	if err != nil {
		return held{}, fmt.Errorf("open %s: %w", key, err)
	}
	for limit := time.Now().Add(lingerLimit); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return held{f}, nil
		}
		pid, alive := holder(path)
		if errors.Is(err, unix.EWOULDBLOCK) && !alive && time.Now().Before(limit) {
			continue
		}
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return held{}, fmt.Errorf("lock %s %s: %w", key, path, err)
		}
		who := "another process"
		if pid > 0 {
			who = fmt.Sprintf("cri-mini with pid %d", pid)
		}
		return held{}, fmt.Errorf("%s %s: %s has it: stop that one first; its pods run on", key, path, who)
	}
}

// holder is who says in the directory that it has the lock, 0 for nobody, and whether there is such a process.
func holder(path string) (pid int, alive bool) {
	text, err := os.ReadFile(filepath.Join(path, pidFile))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, false
	}
	return pid, pid != os.Getpid() && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// is tells whether the directory is what the path leads to now.
func (h held) is(path string) bool {
	a, err := h.dir.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// release lets the next one have it.
func (h held) release() {
	if h.is(h.dir.Name()) {
		os.Remove(filepath.Join(h.dir.Name(), pidFile))
	}
	_ = h.dir.Close()
}
