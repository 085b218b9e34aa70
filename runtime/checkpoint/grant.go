package checkpoint

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Grant is what a container may have, by its config.json and the caller's options.
type Grant struct {
	// UIDs and GIDs are those that processes may have; with AnyUID or AnyGID every one of the user namespace.
	UIDs, GIDs     []uint32
	AnyUID, AnyGID bool
	// Bounding and Caps are sets of capabilities: the former for the bounding set, the latter for all others.
	Bounding, Caps uint64
	NoNewPrivs     bool
	Seccomp        bool // a filter is on every thread
	// Labels are the security labels that a process may have.
	Labels   []string
	AnyLabel bool
	// Namespaces are those that the container has for itself, or joins by a path.
	Namespaces []string
	// Sources gives the path on the host for an external mount at a path of the container; "" refuses it.
	Sources func(point string) string
	// Types are the file systems that may be made anew, by criu's numbers.
	Types []uint64
	// ReadonlyRoot: the root is mounted read-only. Readonly and Masked are paths that are so and that exist.
	ReadonlyRoot     bool
	Readonly, Masked []string
}

// criu's numbers of file systems that are the container's own (mnt.proto).
const (
	TypeProc    = 1
	TypeSysfs   = 2
	TypeTmpfs   = 5
	TypeDevpts  = 6
	TypeCgroup  = 12
	TypeMqueue  = 14
	TypeCgroup2 = 23
)

// mountReadonly is MS_RDONLY (mount(2)).
const mountReadonly = 1

// Check says what the images ask for that the grant does not give; nil is nothing. It fills in what criu has to be told
// of external mounts: their keys and sources.
func (im *Images) Check(g Grant) (external map[string]string, err error) {
	if len(im.Tasks) == 0 {
		return nil, fmt.Errorf("pstree.img: %w", errImage)
	}
	for _, t := range im.Tasks {
		if t.dead() {
			continue
		}
		if err := g.checkTask(im.Host, t); err != nil {
			return nil, fmt.Errorf("process %d of the images: %w", t.PID, err)
		}
	}
	external = map[string]string{}
	for _, mounts := range im.Mounts {
		if err := g.checkMounts(mounts, external); err != nil {
			return nil, err
		}
	}
	return external, nil
}

func (g Grant) checkTask(host Namespaces, t Task) error {
	for _, name := range g.Namespaces {
		switch t.Namespaces[name] {
		case 0:
			return fmt.Errorf("it has no %s namespace", name)
		case host[name]:
			return fmt.Errorf("it is in the %s namespace of the host, and config.json has one of its own", name)
		}
	}
	for _, th := range t.Threads {
		if th.Creds == nil {
			return fmt.Errorf("thread %d has no credentials", th.TID)
		}
		if err := g.checkCreds(*th.Creds); err != nil {
			return fmt.Errorf("thread %d: %w", th.TID, err)
		}
		if g.Seccomp && th.SeccompMode == 0 {
			return fmt.Errorf("thread %d has no seccomp filter, and config.json has a profile", th.TID)
		}
	}
	return nil
}

func (g Grant) checkCreds(c Creds) error {
	for _, id := range c.UIDs {
		if !g.AnyUID && !slices.Contains(g.UIDs, id) {
			return fmt.Errorf("uid %d is not that of process.user, and process.capabilities give no CAP_SETUID", id)
		}
	}
	for _, id := range slices.Concat(c.GIDs, c.Groups) {
		if !g.AnyGID && !slices.Contains(g.GIDs, id) {
			return fmt.Errorf("gid %d is none of process.user's, and process.capabilities give no CAP_SETGID", id)
		}
	}
	for _, set := range []string{"bnd", "prm", "eff", "inh", "amb"} {
		may := g.Caps
		if set == "bnd" {
			may = g.Bounding
		}
		if more := c.Caps[set] &^ may; more != 0 {
			return fmt.Errorf("capabilities %#x in the set %q are none of process.capabilities", more, set)
		}
	}
	if g.NoNewPrivs && !c.NoNewPrivs {
		return fmt.Errorf("no_new_privs is not set, and process.noNewPrivileges is")
	}
	if !g.AnyLabel && !slices.Contains(g.Labels, c.Label) {
		return fmt.Errorf("the security label %q is not that of config.json, %q", c.Label, g.Labels)
	}
	return nil
}

func (g Grant) checkMounts(mounts []Mount, external map[string]string) error {
	root := -1
	for i, m := range mounts {
		isRoot := !slices.ContainsFunc(mounts, func(p Mount) bool { return p.ID == m.Parent && p.ID != m.ID })
		if isRoot && root >= 0 {
			return fmt.Errorf("mounts of the images: there are two roots, %s and %s", mounts[root].Point, m.Point)
		}
		if isRoot {
			root = i
		}
	}
	if root < 0 || mounts[root].External || mounts[root].Point != "/" {
		return fmt.Errorf("mounts of the images: %w: there is no root", errImage)
	}
	if g.ReadonlyRoot && mounts[root].Flags&mountReadonly == 0 {
		return fmt.Errorf("mounts of the images: the root is writable, and root.readonly is set")
	}
	for i, m := range mounts {
		if i == root {
			continue
		}
		if err := g.checkMount(m, mounts[root], external); err != nil {
			return fmt.Errorf("mount on %s of the images: %w", m.Point, err)
		}
	}
	return g.checkHidden(mounts)
}

func (g Grant) checkMount(m, root Mount, external map[string]string) error {
	if m.Point != path.Clean(m.Point) {
		return errImage
	}
	switch {
	case m.External:
		key := m.Key
		if key == "" {
			key = m.Point
		}
		source := g.Sources(m.Point)
		if source == "" || key != m.Point && key != source { // runc's name for a masked file is /dev/null
			return fmt.Errorf("it is external (%q), and config.json has no such mount", key)
		}
		external[key] = source
		return nil
	case m.Dev == root.Dev: // a part of the root, bound onto itself
		return nil
	case slices.Contains(g.Types, m.Type):
		return nil
	}
	return fmt.Errorf("its file system (criu's type %d) is none that config.json mounts", m.Type)
}

// checkHidden wants what config.json masks, or has read-only, to be so.
func (g Grant) checkHidden(mounts []Mount) error {
	at := func(point string) (Mount, bool) {
		for _, m := range slices.Backward(mounts) {
			if m.Point == point {
				return m, true
			}
		}
		return Mount{}, false
	}
	for _, point := range g.Masked {
		if _, ok := at(point); !ok {
			return fmt.Errorf("the images leave %s open, and linux.maskedPaths hides it", point)
		}
	}
	for _, point := range g.Readonly {
		if m, ok := at(point); !ok || m.Flags&mountReadonly == 0 {
			return fmt.Errorf("the images have %s writable, and linux.readonlyPaths has it", point)
		}
	}
	return nil
}

// Below tells whether a path is a directory or lies in it.
func Below(point, dir string) bool {
	return point == dir || strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/")
}
