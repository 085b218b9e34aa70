// Package unit owns the names of the cgroups that systemd makes: a scope for a
// container, written slice:prefix:name as config.json has it with the systemd
// driver, and a slice for what holds several, written by its name alone. A path
// that begins with / is no unit, so that one string tells who makes a cgroup.
//
// Any package above it may import it; it imports nothing of this module.
// Invariant: String of what Parse returned is Parse's same unit again.
package unit

import (
	"fmt"
	"path"
	"strings"
)

// DefaultSlice is where a scope goes that names no slice.
const DefaultSlice = "system.slice"

// root is the slice that all others are in.
const root = "-.slice"

// maxName is how long a unit's name may be in bytes (systemd.unit(5)).
const maxName = 255

// Unit is a scope or a slice.
type Unit struct {
	Name  string // as systemctl has it: "cri-mini-4f2a.scope"
	Slice string // the slice that it is in
	Path  string // of its cgroup within each hierarchy
}

// Is tells a unit from the path of a cgroup.
func Is(name string) bool { return !strings.HasPrefix(name, "/") && name != "" }

// Parse reads slice:prefix:name, or the name of a slice. Without a slice a scope
// is in system.slice; "-" is the root. An empty prefix leaves the name alone.
func Parse(s string) (Unit, error) {
	parts := strings.Split(s, ":")
	if len(parts) == 1 && strings.HasSuffix(s, ".slice") {
		return parseSlice(s)
	}
	if len(parts) != 3 {
		return Unit{}, fmt.Errorf(`%q is not of the form slice:prefix:name, such as "system.slice:cri-mini:web"`, s)
	}
	slice := parts[0]
	switch slice {
	case "":
		slice = DefaultSlice
	case "-":
		slice = root
	}
	dir, err := SlicePath(slice)
	if err != nil {
		return Unit{}, err
	}
	name := scopeName(parts[1], parts[2])
	if parts[2] == "" {
		return Unit{}, fmt.Errorf("%q has no name after its last colon", s)
	}
	if err := checkName(name); err != nil {
		return Unit{}, err
	}
	return Unit{Name: name, Slice: slice, Path: path.Join(dir, name)}, nil
}

func scopeName(prefix, name string) string {
	if strings.HasSuffix(name, ".slice") || strings.HasSuffix(name, ".scope") {
		return name
	}
	if prefix == "" {
		return name + ".scope"
	}
	return prefix + "-" + name + ".scope"
}

func parseSlice(name string) (Unit, error) {
	dir, err := SlicePath(name)
	if err != nil {
		return Unit{}, err
	}
	if dir == "/" {
		return Unit{}, fmt.Errorf("%q is the root of all slices, which is nobody's own", name)
	}
	up := root
	if cut := strings.LastIndexByte(name, '-'); cut >= 0 {
		up = name[:cut] + ".slice"
	}
	return Unit{Name: name, Slice: up, Path: dir}, nil
}

// SlicePath is where systemd has a slice: a-b.slice is in a.slice
// (systemd.slice(5)), whatever directories are written before it.
func SlicePath(slice string) (string, error) {
	if slice == root {
		return "/", nil
	}
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" {
		return "", fmt.Errorf("%q is not the name of a slice: it does not end in .slice", slice)
	}
	if err := checkName(slice); err != nil {
		return "", err
	}
	full := "/"
	for i, c := range name + "-" {
		if c != '-' {
			continue
		}
		if i == 0 || name[i-1] == '-' {
			return "", fmt.Errorf("%q is not the name of a slice: a part between its dashes is empty", slice)
		}
		full = path.Join(full, name[:i]+".slice")
	}
	return full, nil
}

// checkName wants the characters that systemd allows in the name of a unit.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%q is longer than the %d bytes of a unit's name", name, maxName)
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(`:_.\-@`, c) {
			return fmt.Errorf("%q is not a unit's name: it has the character %q", name, c)
		}
	}
	return nil
}

// Scope reports whether it holds processes; a slice holds other units only.
func (u Unit) Scope() bool { return strings.HasSuffix(u.Name, ".scope") }

// String is the form that Parse reads.
func (u Unit) String() string {
	if !u.Scope() {
		return u.Name
	}
	return u.Slice + "::" + u.Name
}
