// Package cgroup owns the cgroups of pods and containers on v1, v2 and hybrid
// machines: it makes, limits, reads, kills and removes them. runtime/engine and
// sandbox import it; it imports nothing of this module.
//
// A cgroup is named by one path that is absolute within every hierarchy, such as
// "/kubepods/burstable/pod8f2c/4f2a". It is a directory per hierarchy: nine on a
// v1 machine, one on v2. The package writes files directly, with paths worked
// out once: a container's cgroup with limits and device rules takes well below a
// millisecond that way. The library github.com/opencontainers/cgroups is used
// for what is subtle rather than slow: device rules and unit conversions.
//
// Or it is named by a unit of systemd, "kubepods-pod8f2c.slice:cri-mini:4f2a",
// which then makes and removes it (systemd.go). All else is done by its files
// as for a path, without D-Bus, but for limits: those systemd must know as the
// unit's properties (property.go), or it would put others in force some day. The
// library's managers do the same, by a connection of their own and in another
// order: a process first, and into each v1 hierarchy by the slow file.
//
// Invariant: nothing is removed that the package was not asked to remove, but
// for parents that it had to make itself; those carry a mark (see mark.go) and
// go with their last child.
package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cri-mini/cri-mini/runtime/unit"
)

// Layout says where the hierarchies are; its fields are those of the host
// package's Cgroup, which converts to it.
type Layout struct {
	Mode               string
	Mounts             map[string]string
	Unified            string
	UnifiedControllers []string
	Own                map[string]string
}

// Config is what New needs.
type Config struct {
	Layout Layout
}

// hierarchy is one mounted tree of cgroups.
type hierarchy struct {
	mount       string
	controllers []string // those of v1; for v2 those that its root offers
	v2          bool
}

func (h *hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

func (h *hierarchy) dir(path string) string { return h.mount + path }

// Tree is the set of hierarchies of one machine. Its methods may be called at
// the same time, for one cgroup too: the kernel orders them.
type Tree struct {
	// list has v2 first, which kills, and memory last, in the order of joining.
	list []*hierarchy
	v2   *hierarchy // nil when there is none
	pure bool       // v2 holds every controller
	bus  bus        // the way to systemd, which names of units need
	lost sync.Mutex // see OOMKills
	// slices is held by dropParents, and for reading by who starts units.
	slices sync.RWMutex
}

// New checks the layout and returns its tree. It touches no file.
func New(config Config) (*Tree, error) {
	tree := &Tree{pure: config.Layout.Mode == "v2", bus: bus{socket: systemdSocket}}
	if unified := config.Layout.Unified; unified != "" {
		tree.v2 = &hierarchy{mount: filepath.Clean(unified), controllers: config.Layout.UnifiedControllers, v2: true}
		tree.list = append(tree.list, tree.v2)
	}
	if !tree.pure {
		tree.list = append(tree.list, v1Hierarchies(config.Layout.Mounts)...)
	}
	if len(tree.list) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted; mount one at /sys/fs/cgroup")
	}
	return tree, nil
}

// v1Hierarchies groups controllers that share a mount ("cpu,cpuacct"), and puts
// memory last: what a task allocates before it joins is charged elsewhere, and
// a limit below a few megabytes would kill it while it still sets itself up.
func v1Hierarchies(mounts map[string]string) []*hierarchy {
	byMount := map[string]*hierarchy{}
	for controller, mount := range mounts {
		mount = filepath.Clean(mount)
		if byMount[mount] == nil {
			byMount[mount] = &hierarchy{mount: mount}
		}
		byMount[mount].controllers = append(byMount[mount].controllers, controller)
	}
	var list []*hierarchy
	for _, h := range byMount {
		slices.Sort(h.controllers)
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *hierarchy) int {
		if am, bm := a.has("memory"), b.has("memory"); am != bm {
			if am {
				return 1
			}
			return -1
		}
		return strings.Compare(a.mount, b.mount)
	})
	return list
}

// find returns the hierarchy that has a controller, v1 before v2, or nil.
func (t *Tree) find(controller string) *hierarchy {
	for _, h := range t.list {
		if !h.v2 && h.has(controller) {
			return h
		}
	}
	if t.v2 != nil && t.v2.has(controller) {
		return t.v2
	}
	return nil
}

// main returns the hierarchy whose lists of processes are taken as the truth.
func (t *Tree) main() *hierarchy {
	if t.pure {
		return t.v2
	}
	for _, controller := range []string{"pids", "memory", "freezer", "cpu"} {
		if h := t.find(controller); h != nil && !h.v2 {
			return h
		}
	}
	return t.list[len(t.list)-1]
}

// locate gives the path of a cgroup that is named by it or by its unit.
func locate(name string) (string, error) {
	if !unit.Is(name) {
		return name, checkPath(name)
	}
	u, err := unit.Parse(name)
	return u.Path, err
}

// checkPath refuses what would name another cgroup than it seems to.
func checkPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("cgroup path %q is relative; it must be absolute within the hierarchies", path)
	case path == "/":
		return errors.New(`cgroup path "/" is the root of the hierarchies, which is nobody's own`)
	case filepath.Clean(path) != path:
		return fmt.Errorf("cgroup path %q is not clean; did you mean %q", path, filepath.Clean(path))
	case strings.ContainsAny(path, "\n\x00"):
		return fmt.Errorf("cgroup path %q has a newline or a zero byte", path)
	}
	return nil
}
