package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/engine"
	"github.com/cri-mini/cri-mini/runtime/host"
)

const defaultRoot = "/run/mini-runc"

// rootless is the value of --rootless: whether a container may do without cgroups where they are not permitted. It says
// nothing about user namespaces: those are the specification's, and whether maps can be written is found out.
type rootless struct {
	set, yes bool // not set is auto
}

func (r *rootless) String() string {
	if r == nil || !r.set {
		return "auto"
	}
	return strconv.FormatBool(r.yes)
}

// Set takes what runc takes.
func (r *rootless) Set(s string) error {
	if s == "" || strings.EqualFold(s, "auto") {
		*r = rootless{}
		return nil
	}
	yes, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want true, false or auto")
	}
	*r = rootless{set: true, yes: yes}
	return nil
}

// lenient decides: root of the initial user namespace is the one whom cgroups are permitted.
func (r *rootless) lenient() bool {
	if r.set {
		return r.yes
	}
	return os.Geteuid() != 0 || inUserNS()
}

// inUserNS tells whether this process is in another user namespace than the machine's own, which maps all ids.
func inUserNS() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(text))
	return err == nil && !(len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295")
}

// placeRoot finds the directory of all containers. Without --root it is below $XDG_RUNTIME_DIR for whoever is not the
// machine's root, with the sticky bit that keeps it from being cleaned up (XDG Base Directory Specification).
func (a *app) placeRoot() (err error) {
	if a.rootSet {
		if a.root, err = filepath.Abs(a.root); err == nil && a.root == "/" {
			err = errors.New("Option --root argument should not be set to /") //nolint:staticcheck // ST1005: runc's words
		}
		return err
	}
	a.root = defaultRoot
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if runtimeDir == "" || os.Geteuid() == 0 && (os.Getenv("USER") == "root" || !inUserNS()) {
		return nil
	}
	a.root = filepath.Join(runtimeDir, "mini-runc")
	if err = os.MkdirAll(a.root, 0o700); err == nil {
		err = os.Chmod(a.root, 0o700|fs.ModeSticky)
	}
	if err != nil {
		return fmt.Errorf("the path in $XDG_RUNTIME_DIR must be writable by the user: %w", err)
	}
	return nil
}

// chooseGroup decides about the cgroup of a container that is made leniently: the one that the specification names;
// else one beside or below our own; else, where that is not permitted, none. It changes the specification.
func (a *app) chooseGroup(spec *specs.Spec, o *compile.Options) {
	if spec.Linux == nil || a.systemd || !a.rootless.lenient() {
		return
	}
	l := *spec.Linux
	spec.Linux = &l
	if os.Geteuid() != 0 && l.Resources != nil && len(l.Resources.Devices) > 0 { // nobody else can load such rules
		r := *l.Resources
		r.Devices = nil
		l.Resources = &r
		a.log.debugf("linux.resources.devices: left out, they take privileges")
	}
	if l.CgroupsPath != "" {
		return
	}
	if path, ok := ownGroup(a.facts.Cgroup, o.ID); ok {
		l.CgroupsPath = path
		return
	}
	o.NoCgroup = true
	a.log.debugf("the container gets no cgroup: none may be made beside our own")
}

// ownGroup is a group for the container that may be made in every hierarchy. On v2 that is beside our own, which has
// processes and so cannot hand controllers down; on v1 below it, if it has one name everywhere.
func ownGroup(c host.Cgroup, id string) (string, bool) {
	if c.Mode == host.CgroupV2 {
		parent := filepath.Dir(filepath.Join("/", c.Own[""]))
		return filepath.Join(parent, id), permitted(c.Unified + parent)
	}
	parent, first := "", true
	for controller, mount := range c.Mounts {
		own := filepath.Join("/", c.Own[strings.TrimPrefix(controller, "name=")])
		if named, ok := c.Own[controller]; ok {
			own = filepath.Join("/", named)
		}
		if !first && own != parent || !permitted(mount+own) {
			return "", false
		}
		parent, first = own, false
	}
	if c.Unified != "" && !permitted(c.Unified+parent) {
		return "", false
	}
	return filepath.Join(parent, id), !first
}

// permitted tells whether a group can be made in a directory.
func permitted(dir string) bool {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS) == nil
}

// groupOf tells an exec which cgroup the container got where its specification names none.
func groupOf(e *engine.Command, id string, spec *specs.Spec, o *compile.Options) error {
	if spec.Linux != nil && spec.Linux.CgroupsPath != "" {
		return nil
	}
	path, err := e.Group(id)
	if err != nil {
		return err
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	spec.Linux.CgroupsPath, o.NoCgroup = path, path == ""
	return nil
}
