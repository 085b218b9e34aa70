package cgroup

import (
	"errors"
	"io/fs"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/unit"
)

// Former is what one file of a cgroup held before an update, in the lines that
// bring it back. It is plain data: whoever must be able to undo an update that
// was cut short writes it down first.
type Former struct {
	Path  string   `json:"path"` // absolute
	Lines []string `json:"lines"`
	// Unit is the name of the cgroup where systemd has to hear of the lines too.
	Unit string `json:"unit,omitempty"`
}

// Former returns what Update with these resources would change, as it is now.
// Files that are absent, and values that nobody can write back, are left out.
func (t *Tree) Former(path string, resources *specs.LinuxResources) ([]Former, error) {
	if _, err := locate(path); err != nil {
		return nil, err
	}
	plan, err := t.settings(resources)
	if err != nil {
		return nil, err
	}
	return t.former(path, plan)
}

func (t *Tree) former(name string, plan *plan) ([]Former, error) {
	path, err := locate(name)
	if err != nil {
		return nil, err
	}
	of := ""
	if unit.Is(name) {
		of = name
	}
	var list []Former
	for _, h := range t.list {
		dir := h.dir(path)
		for _, s := range plan.forHierarchy(t, h) {
			now, err := readFile(dir, s.file)
			if errors.Is(err, fs.ErrNotExist) || err != nil && s.controller == "" { // memory.reclaim cannot be read
				continue
			}
			if err != nil {
				return nil, err
			}
			list = append(list, Former{Path: dir + "/" + s.file, Lines: s.undo(now), Unit: of})
		}
	}
	return list, nil
}

// TakeBack writes former values, those of files or cgroups that are gone
// excepted. Some files check each other (memory and memory with swap, period and
// quota), and how far the update had come is not known: what is refused is tried
// again after the others, for as long as that helps. It goes on past errors.
func (t *Tree) TakeBack(list []Former) error {
	return errors.Join(t.takeBackUnits(list), t.takeBackFiles(list))
}

func (t *Tree) takeBackFiles(list []Former) error {
	for {
		var refused []Former
		var errs []error
		for _, f := range list {
			if err := f.write(); err != nil {
				refused = append(refused, f)
				errs = append(errs, err)
			}
		}
		if len(refused) == 0 || len(refused) == len(list) {
			return errors.Join(errs...)
		}
		list = refused
	}
}

func (f *Former) write() error {
	cut := strings.LastIndexByte(f.Path, '/')
	for _, line := range f.Lines {
		err := writeFile(f.Path[:cut], f.Path[cut+1:], line+"\n") // an empty value must be some byte
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

// undo makes the lines that bring the file back to what it holds now.
func (s *setting) undo(now string) []string {
	if s.file == "memory.oom_control" {
		return []string{decimal(int64(lookup(now, "oom_kill_disable")))}
	}
	if s.file == "io.weight" && !s.keyed {
		return []string{strings.SplitN(now, "\n", 2)[0]} // the default's line is the first
	}
	if !s.keyed {
		return []string{now}
	}
	name, _, _ := strings.Cut(s.value, " ")
	for line := range strings.SplitSeq(now, "\n") {
		if key, _, _ := strings.Cut(line, " "); key == name {
			return []string{line}
		}
	}
	return []string{s.reset}
}
