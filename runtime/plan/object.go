package plan

import "encoding/json"

// ObjectKind names a kind of thing that a container's life leaves in the kernel or on disk.
type ObjectKind string

// The kinds of object that the journal records. Each has exactly one releaser, and every releaser
// may be called again for an object that is already gone.
const (
	// Cgroup is a control group; Name is its path within each hierarchy.
	Cgroup ObjectKind = "cgroup"
	// Namespace is an nsfs bind that keeps a namespace alive; Name is the path of the bind.
	Namespace ObjectKind = "namespace"
	// Mount is a mount point that outlives its maker; Name is the path.
	Mount ObjectKind = "mount"
	// Dir is a directory tree; Name is its path.
	Dir ObjectKind = "dir"
	// Process is a container's init; Name is the container id, Data holds pid and start time once known.
	Process ObjectKind = "process"
	// Attachment is a pod's network; Data is the whole record that a detach needs.
	Attachment ObjectKind = "attachment"
	// Lend is an image whose layers a container uses; Name is the image id.
	Lend ObjectKind = "lend"
	// ResctrlGroup is a group of the resctrl file system that the container has for itself; Name is its directory.
	ResctrlGroup ObjectKind = "resctrl"
	// Hooks is the duty to run a bundle's poststop hooks; Name is the container id.
	Hooks ObjectKind = "hooks"
)

// Object is one kernel or disk object as the journal stores it: written down before it is made,
// released after it is gone.
type Object struct {
	Kind  ObjectKind      `json:"kind"`
	Name  string          `json:"name"`
	Owner string          `json:"owner,omitempty"` // container id; empty for what belongs to the pod
	Data  json.RawMessage `json:"data,omitempty"`
}

// Same reports whether two records speak of one object.
func (o Object) Same(p Object) bool {
	return o.Kind == p.Kind && o.Name == p.Name && o.Owner == p.Owner
}
