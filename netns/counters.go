package netns

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// Counters are those of one interface since it was made, as the pod sees them.
type Counters struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// ReadCounters reads the interfaces in each of the network namespaces, lo left
// out; nil for one that is gone. A thread that is thrown away enters one after
// the other and reads /proc/thread-self/net/dev: that takes no RTNL lock, which
// pods that are being made wait for, and works whatever plugin made the interface.
func ReadCounters(paths []string) ([][]Counters, error) {
	type result struct {
		list [][]Counters
		err  error
	}
	done := make(chan result)
	linux.GoThread(func() {
		list, buf := make([][]Counters, len(paths)), make([]byte, 8<<10)
		for i, path := range paths {
			counters, err := countersOf(path, buf)
			if err != nil {
				done <- result{err: fmt.Errorf("read counters of network namespace %s: %w", path, err)}
				return
			}
			list[i] = counters
		}
		done <- result{list: list}
	})
	r := <-done
	return r.list, r.err
}

// countersOf enters a namespace and reads its interfaces.
func countersOf(path string, buf []byte) ([]Counters, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	_ = unix.Close(fd)
	if errors.Is(err, unix.EINVAL) {
		return nil, nil // unpinned between the stop of a pod and the removal of the file
	}
	if err != nil {
		return nil, err
	}
	text, err := readDev(buf)
	if err != nil {
		return nil, err
	}
	return parseCounters(text), nil
}

// readDev reads by plain system calls: os.File costs as much again.
func readDev(buf []byte) (string, error) {
	fd, err := unix.Open("/proc/thread-self/net/dev", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var text strings.Builder
	for {
		n, err := unix.Read(fd, buf)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return "", err
		}
		if n == 0 {
			return text.String(), nil
		}
		text.Write(buf[:max(n, 0)])
	}
}

// parseCounters reads proc_pid_net(5)'s dev: eight numbers received, eight sent.
func parseCounters(text string) []Counters {
	list := []Counters{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(f) < 16 || name == "lo" {
			continue
		}
		number := func(i int) uint64 {
			n, _ := strconv.ParseUint(f[i], 10, 64)
			return n
		}
		list = append(list, Counters{
			Name: name, RxBytes: number(0), RxPackets: number(1), RxErrors: number(2), RxDropped: number(3),
			TxBytes: number(8), TxPackets: number(9), TxErrors: number(10), TxDropped: number(11),
		})
	}
	return list
}
