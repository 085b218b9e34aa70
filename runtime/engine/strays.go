package engine

import (
	"os"
	"os/signal"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// strayAge is how long a dead child waits for whoever started or adopted it before it counts as a stray.
const strayAge = time.Second

// reapStrays collects what becomes our child without anybody's asking, because we are a subreaper: an init that a
// monitor cloned just before it died, or what a dead monitor's exec left behind. Whoever waits for a child of ours does
// so at once; a zombie that has waited for strayAge is nobody's.
func reapStrays(stop <-chan struct{}) {
	news := make(chan os.Signal, 1)
	signal.Notify(news, unix.SIGCHLD)
	defer signal.Stop(news)
	var seen map[int]uint64
	for {
		select {
		case <-stop:
			return
		case <-news:
		}
		for anyZombie() {
			select {
			case <-stop:
				return
			case <-time.After(strayAge):
			}
			now := zombies()
			for pid, born := range now {
				if seen[pid] == born {
					_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
				}
			}
			seen = now
		}
	}
}

// anyZombie tells cheaply whether a child of ours has ended and is not reaped.
func anyZombie() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && linux.ChildPID(&info) > 0
}

// zombies lists them with their start times. waitid(2) would name the first one only, /proc/PID/task/TID/children is
// not in every kernel.
func zombies() map[int]uint64 {
	found := make(map[int]uint64)
	names, err := readNames("/proc")
	if err != nil {
		return found
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err == nil && linux.ChildPID(&info) == pid {
			found[pid] = linux.StartTime(pid)
		}
	}
	return found
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
