package engine

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

// nsThread is a thread that has unshared a pod's namespaces. It lives until they are pinned.
type nsThread struct {
	tid  int
	quit chan struct{}
}

// newNSThread carries out an ns_create.
func newNSThread(op *plan.Op) (*nsThread, error) {
	t := &nsThread{quit: make(chan struct{})}
	ready := make(chan error, 1)
	linux.GoThread(func() {
		t.tid = unix.Gettid()
		err := unshareInto(op)
		ready <- err
		if err == nil {
			<-t.quit
		}
	})
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

func unshareInto(op *plan.Op) error {
	if err := unix.Unshare(int(op.Num[0])); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if op.Str[0] != "" {
		if err := unix.Sethostname([]byte(op.Str[0])); err != nil {
			return fmt.Errorf("set host name %q: %w", op.Str[0], err)
		}
	}
	if op.Str[1] != "" {
		if err := unix.Setdomainname([]byte(op.Str[1])); err != nil {
			return fmt.Errorf("set domain name %q: %w", op.Str[1], err)
		}
	}
	for _, s := range op.List[0] {
		key, value, _ := strings.Cut(s, "=")
		// A plain open and write: the file must be opened and written by this very thread.
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s to %q: %w", key, value, err)
		}
	}
	return nil
}

// open opens one of the thread's namespaces.
func (t *nsThread) open(typ string) (int, error) {
	return openNS(fmt.Sprintf("/proc/self/task/%d/ns/%s", t.tid, typ))
}

func openNS(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open namespace %s: %w", path, err)
	}
	return fd, nil
}

func (t *nsThread) close() { close(t.quit) }
