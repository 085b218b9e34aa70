package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Creds are those of one thread (criu's creds.proto).
type Creds struct {
	UIDs, GIDs []uint32 // real, effective, saved, of files
	Groups     []uint32
	Caps       map[string]uint64 // "inh", "prm", "eff", "bnd", "amb"
	Label      string
	NoNewPrivs bool
}

// Thread is a thread of a process in the images.
type Thread struct {
	TID         uint32
	Creds       *Creds
	SeccompMode uint64 // 0 for none (seccomp(2))
	state       uint64 // of the process, with its leader
}

// dead tells of a process that has ended and is not waited for: it has nothing any more.
func (t Task) dead() bool {
	const taskDead, taskZombie = 2, 6
	for _, th := range t.Threads {
		if th.TID == t.PID {
			return th.state == taskDead || th.state == taskZombie
		}
	}
	return false
}

// Namespaces are the ids that criu has given to namespaces, by their names in /proc/PID/ns; 0 is none.
type Namespaces map[string]uint64

// Task is a process in the images.
type Task struct {
	PID        uint32
	Threads    []Thread
	Namespaces Namespaces
}

// Mount is a mount of a mount namespace in the images.
type Mount struct {
	ID, Parent uint64
	Type       uint64 // criu's fstype
	Flags      uint64 // mount(2)
	Dev        uint64
	Root       string
	Point      string // as the container sees it
	Key        string // of an external one; criu asks the caller for its source by it
	External   bool
}

// Images is what the check wants to know of a directory of images.
type Images struct {
	Host   Namespaces // those that criu itself was in
	Tasks  []Task
	Mounts map[uint64][]Mount // by mount namespace
}

// Read reads the images in a directory.
func Read(dir string) (*Images, error) {
	im := &Images{Mounts: map[uint64][]Mount{}}
	inventory, err := one(filepath.Join(dir, "inventory.img"))
	if err != nil {
		return nil, err
	}
	err = each(inventory, nil, func(f field) (err error) {
		if f.number == 3 && f.isBytes {
			im.Host, err = readNamespaces(f.bytes)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("inventory.img: %w", err)
	}
	tree, err := entries(filepath.Join(dir, "pstree.img"))
	if err != nil {
		return nil, err
	}
	for _, entry := range tree {
		t, err := readTask(dir, entry)
		if err != nil {
			return nil, err
		}
		im.Tasks = append(im.Tasks, t)
		if ns := t.Namespaces["mnt"]; ns != 0 && im.Mounts[ns] == nil {
			if im.Mounts[ns], err = readMounts(dir, ns); err != nil {
				return nil, err
			}
		}
	}
	return im, checkGroups(filepath.Join(dir, "cgroup.img"))
}

// checkGroups wants no path of a cgroup to lead up: criu puts the container's own before them.
func checkGroups(path string) error {
	list, err := entries(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range list {
		err = errors.Join(err, each(entry, []uint64{1, 2}, func(f field) error {
			if f.number == 1 { // cg_set_entry, with a cg_member_entry for each controller
				return each(f.bytes, []uint64{2}, func(f field) error {
					if f.number != 2 {
						return nil
					}
					return each(f.bytes, nil, func(f field) error { return checkGroup(f, 2) })
				})
			}
			return each(f.bytes, []uint64{1, 2}, func(f field) error { // cg_controller_entry
				if f.number != 2 {
					return nil
				}
				return checkGroupDir(f.bytes, 0)
			})
		}))
	}
	if err != nil {
		return fmt.Errorf("cgroup.img: %w", err)
	}
	return nil
}

// checkGroupDir looks at a cgroup_dir_entry and those below it.
func checkGroupDir(message []byte, depth int) error {
	if depth > 64 {
		return errImage
	}
	repeated := []uint64{2, 3} // children, properties
	return each(message, repeated, func(f field) error {
		if f.number == 2 && f.isBytes {
			return checkGroupDir(f.bytes, depth+1)
		}
		return checkGroup(f, 1)
	})
}

func checkGroup(f field, number uint64) error {
	if f.number == number && slices.Contains(strings.Split(string(f.bytes), "/"), "..") {
		return fmt.Errorf("the path %q leads out of the container's cgroup", f.bytes)
	}
	return nil
}

func one(path string) ([]byte, error) {
	list, err := entries(path)
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%s: %w", path, errImage)
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// readTask reads an entry of the tree and the files of its process.
func readTask(dir string, entry []byte) (Task, error) {
	t := Task{}
	var tids []uint32
	err := each(entry, []uint64{5}, func(f field) error {
		switch f.number {
		case 1:
			t.PID = uint32(f.value)
		case 5:
			more, err := f.numbers()
			tids = append(tids, more...)
			return err
		}
		return nil
	})
	if err != nil {
		return t, fmt.Errorf("pstree.img: %w", err)
	}
	if err := t.readThread(dir, t.PID); err != nil || t.dead() {
		return t, err // the threads of a process that has ended are numbers that criu has not set
	}
	for _, tid := range tids {
		if tid == t.PID {
			continue
		}
		if err := t.readThread(dir, tid); err != nil {
			return t, err
		}
	}
	ids, err := one(filepath.Join(dir, fmt.Sprintf("ids-%d.img", t.PID)))
	if err == nil {
		t.Namespaces, err = readNamespaces(ids)
	}
	if err != nil {
		return t, fmt.Errorf("process %d: %w", t.PID, err)
	}
	return t, nil
}

func (t *Task) readThread(dir string, tid uint32) error {
	core, err := one(filepath.Join(dir, fmt.Sprintf("core-%d.img", tid)))
	if err != nil {
		return err
	}
	thread, err := readCore(core)
	if err != nil {
		return fmt.Errorf("core-%d.img: %w", tid, err)
	}
	thread.TID = tid
	t.Threads = append(t.Threads, thread)
	return nil
}

var namespaceFields = map[uint64]string{5: "pid", 6: "net", 7: "ipc", 8: "uts", 9: "mnt", 10: "user", 11: "cgroup", 12: "time"}

func readNamespaces(message []byte) (Namespaces, error) {
	ns := Namespaces{}
	err := each(message, nil, func(f field) error {
		if name, ok := namespaceFields[f.number]; ok {
			ns[name] = f.value
		}
		return nil
	})
	return ns, err
}

// readCore reads a thread's core_entry. The mode of an old criu is the process's.
func readCore(message []byte) (Thread, error) {
	t := Thread{}
	err := each(message, nil, func(f field) error {
		if !f.isBytes {
			return nil
		}
		switch f.number {
		case 3: // task_core_entry
			return each(f.bytes, []uint64{15}, func(f field) error {
				if f.number == 1 {
					t.state = f.value
				}
				if f.number == 11 && t.SeccompMode == 0 {
					t.SeccompMode = f.value
				}
				return nil
			})
		case 5: // thread_core_entry
			return each(f.bytes, nil, func(f field) (err error) {
				switch {
				case f.number == 10 && f.isBytes:
					t.Creds, err = readCreds(f.bytes)
				case f.number == 11:
					t.SeccompMode = f.value
				}
				return err
			})
		}
		return nil
	})
	return t, err
}

func readCreds(message []byte) (*Creds, error) {
	c := &Creds{Caps: map[string]uint64{}}
	words := map[string][]uint32{}
	sets := map[uint64]string{9: "inh", 10: "prm", 11: "eff", 12: "bnd", 19: "amb"}
	err := each(message, []uint64{9, 10, 11, 12, 14, 19}, func(f field) error {
		switch f.number {
		case 1, 3, 5, 7:
			c.UIDs = append(c.UIDs, uint32(f.value))
		case 2, 4, 6, 8:
			c.GIDs = append(c.GIDs, uint32(f.value))
		case 14:
			more, err := f.numbers()
			c.Groups = append(c.Groups, more...)
			return err
		case 15:
			c.Label = string(f.bytes)
		case 18:
			c.NoNewPrivs = f.value != 0
		}
		if name, ok := sets[f.number]; ok {
			more, err := f.numbers()
			words[name] = append(words[name], more...)
			return err
		}
		return nil
	})
	for name, list := range words {
		for i, w := range list {
			if i > 1 && w != 0 {
				return c, errImage // a capability that no kernel has
			}
			c.Caps[name] |= uint64(w) << (32 * min(i, 1))
		}
	}
	return c, err
}

func readMounts(dir string, ns uint64) ([]Mount, error) {
	name := fmt.Sprintf("mountpoints-%d.img", ns)
	list, err := entries(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	mounts := make([]Mount, 0, len(list))
	for _, entry := range list {
		m := Mount{}
		err := each(entry, nil, func(f field) error {
			switch f.number {
			case 1:
				m.Type = f.value
			case 2:
				m.ID = f.value
			case 3:
				m.Dev = f.value
			case 4:
				m.Parent = f.value
			case 5:
				m.Flags = f.value
			case 6:
				m.Root = string(f.bytes)
			case 7:
				m.Point = "/" + strings.Trim(strings.TrimPrefix(string(f.bytes), "."), "/")
			case 13:
				m.External = m.External || f.value != 0
			case 18:
				m.Key, m.External = string(f.bytes), true
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}
