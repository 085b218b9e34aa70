package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
)

// categories is how many SELinux has in the policies of distributions (c0 … c1023).
const categories = 1024

// labelsContainers says whether SELinux is on and the policy knows containers: it says what their labels are.
func labelsContainers(on bool) (bool, error) {
	if !on {
		return false, nil
	}
	process, file, err := label.InitLabels(nil)
	if err != nil {
		return false, fmt.Errorf("read the labels of containers from the SELinux policy: %w", err)
	}
	selinux.ReleaseLabel(file)
	return process != "", nil
}

// takeLevel gives a pod a pair of categories that no other pod of this node has, so that what one pod's label may read
// another's may not. Half a million pairs: the pods of a node never run out of them.
func (m *Manager) takeLevel(p *Pod) {
	if !m.labels {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for p.level == "" {
		a, b := rand.IntN(categories), rand.IntN(categories)
		level := fmt.Sprintf("s0:c%d,c%d", min(a, b), max(a, b))
		if a != b && m.levels[level] == "" {
			p.level = level
			m.levels[level] = p.ID
		}
	}
}

// relabel gives the sources of mounts that ask for it the label that the container may use. A file system that keeps no
// labels has one label for all, set when it was mounted.
func relabel(paths []string, mountLabel string) error {
	if mountLabel == "" {
		return nil
	}
	for _, path := range paths {
		if err := selinux.Chcon(path, mountLabel, true); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("relabel %s as %s: %w", path, mountLabel, err)
		}
	}
	return nil
}
