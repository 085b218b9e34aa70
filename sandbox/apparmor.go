package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/oci"
)

const (
	// loadedProfiles lists the AppArmor profiles of the kernel, a line each: "name (mode)".
	loadedProfiles = "/sys/kernel/security/apparmor/profiles"
	// apparmorABI is there if the parser knows it; see oci.AppArmorProfile.
	apparmorABI = "/etc/apparmor.d/abi/3.0"
	// parserLimit bounds one run of the parser, which compiles the profile.
	parserLimit = time.Minute
)

// appArmor loads the default profile. The zero value is ready. The kernel keeps a profile that is loaded, also when the
// daemon ends: whoever runs under it runs on.
type appArmor struct {
	mu     sync.Mutex
	loaded bool // by this daemon: an earlier one's may be another text
	warned bool
}

// apply makes sure that the kernel has the profile of a spec. The default one is loaded when the first container wants
// it, and again when somebody has removed it. Where that cannot be done, a container that asked for it is refused; one
// that said nothing goes without, as on a node without AppArmor.
func (a *appArmor) apply(ctx context.Context, log *slog.Logger, spec *specs.Spec, asked bool) error {
	name := spec.Process.ApparmorProfile
	if name == "" {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	loaded, err := isLoaded(name)
	switch {
	case err != nil:
		return err
	case name != oci.DefaultAppArmor && !loaded:
		return fmt.Errorf("container config: linux.security_context.apparmor: profile %q is not loaded on this node: %w", name, ErrInvalid)
	case name != oci.DefaultAppArmor, loaded && a.loaded:
		return nil
	}
	err = loadProfile(ctx, name)
	if err == nil {
		a.loaded = true
		return nil
	}
	if asked {
		return stateError{fmt.Errorf("container config: linux.security_context.apparmor: %w", err)}
	}
	if !a.warned {
		log.Warn("containers that ask for no AppArmor profile get none", "err", err)
		a.warned = true
	}
	spec.Process.ApparmorProfile = ""
	return nil
}

func isLoaded(name string) (bool, error) {
	f, err := os.Open(loadedProfiles)
	if err != nil {
		return false, fmt.Errorf("list AppArmor profiles: %w", err)
	}
	defer f.Close()
	loaded, err := hasProfile(f, name)
	if err != nil {
		return false, fmt.Errorf("list AppArmor profiles: %w", err)
	}
	return loaded, nil
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

// loadProfile compiles and loads the default profile, or puts it in the place of one of the same name.
func loadProfile(ctx context.Context, name string) error {
	parser, err := findParser()
	if err != nil {
		return err
	}
	_, err = os.Stat(apparmorABI)
	ctx, cancel := context.WithTimeout(ctx, parserLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, parser, "--replace", "--skip-cache")
	cmd.Stdin = strings.NewReader(oci.AppArmorProfile(name, err == nil))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %s: %w: %s", name, parser, err, bytes.TrimSpace(out))
	}
	return nil
}

// findParser looks in the directories of administrators too, which a PATH need not have.
func findParser() (string, error) {
	const name = "apparmor_parser"
	for _, file := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		path, err := exec.LookPath(file)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find %s: %w", name, err)
		}
	}
	return "", fmt.Errorf("there is no %s on this node, which loads profiles: install the package apparmor", name)
}
