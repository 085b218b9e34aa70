package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/oci"
)

// loadedProfiles lists the AppArmor profiles of the kernel, a line each: "name (mode)".
const loadedProfiles = "/sys/kernel/security/apparmor/profiles"

// checkAppArmor refuses a profile that the kernel does not have. The default one is the daemon's to load.
func checkAppArmor(spec *specs.Spec) error {
	name := spec.Process.ApparmorProfile
	if name == "" || name == oci.DefaultAppArmor {
		return nil
	}
	f, err := os.Open(loadedProfiles)
	if err != nil {
		return fmt.Errorf("list AppArmor profiles: %w", err)
	}
	defer f.Close()
	loaded, err := hasProfile(f, name)
	if err != nil {
		return fmt.Errorf("list AppArmor profiles: %w", err)
	}
	if !loaded {
		return fmt.Errorf("container config: linux.security_context.apparmor: profile %q is not loaded on this node: %w", name, ErrInvalid)
	}
	return nil
}

func hasProfile(r io.Reader, name string) (bool, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if i := strings.LastIndex(s.Text(), " ("); i >= 0 && s.Text()[:i] == name {
			return true, nil
		}
	}
	return false, s.Err()
}

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
