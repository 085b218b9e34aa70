package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// fixup is the plan of a thin layer on top of an image's layers, which settles what unpacking them without their
// parents left open:
//
//   - a directory that a layer implied shows with the attributes of the layer below that describes it;
//   - a hard link to a file of a layer below becomes one: a further link(2) to that layer's inode. No content is
//     copied, and both names have one inode number in the container. The price: st_nlink counts the name in other
//     images that share the layer, too (overlayfs does not promise an exact count in any case);
//   - where a layer implied a directory and the layers below have a symlink there (/lib → usr/lib), the symlink shows
//     and what the layer put into the directory shows where the symlink leads. An opaque directory within loses its
//     opacity on the way;
//   - a directory with whiteouts that no other layer has would list them (unpack.Info.Hiding): a directory in this layer
//     makes overlayfs merge, and leave them out.
type fixup struct {
	st    stack
	dirs  map[string]*hit // to show with the attributes of hit; nil for the default ones
	links map[string]*hit // to show as another name of hit
	moves []move
}

// move is a directory of a level that a symlink below makes show at another place.
type move struct {
	level    int
	from, to string
	symlink  *hit
}

// planFixup looks what an image needs. It returns nil if nothing, as for nearly every image.
func planFixup(st stack) (*fixup, error) {
	if len(st) == 0 {
		return nil, nil
	}
	f := &fixup{st: st, dirs: make(map[string]*hit), links: make(map[string]*hit)}
	for k, l := range st {
		if k > 0 {
			if err := f.planImplied(k); err != nil {
				return nil, err
			}
		}
		for _, p := range l.Info.Hiding {
			if err := f.planHiding(k, string(p)); err != nil {
				return nil, err
			}
		}
		for _, link := range l.Info.Links {
			if err := f.planLink(k, link); err != nil {
				return nil, fmt.Errorf("layer %s: entry %q: %w", l.Key, string(link.Name), err)
			}
		}
	}
	if err := f.planDir("."); err != nil {
		return nil, err
	}
	if len(f.dirs) == 0 && len(f.links) == 0 && len(f.moves) == 0 {
		return nil, nil
	}
	return f, nil
}

func (f *fixup) top() int { return len(f.st) - 1 }

func (f *fixup) planImplied(k int) error {
	moved := "" // Implied is sorted: what is below a moved directory follows it
	for _, p := range f.st[k].Info.Implied {
		p := string(p)
		if p == "." || (moved != "" && strings.HasPrefix(p, moved+"/")) {
			continue
		}
		below, err := f.st.find(k-1, p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case below.kind() == unix.S_IFLNK:
			moved = p
			if err := f.planMove(k, p, below); err != nil {
				return err
			}
		default:
			if err := f.planDir(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// planDir takes in a directory whose topmost form is an implied one while a layer below describes it.
func (f *fixup) planDir(p string) error {
	h, err := f.st.find(f.top(), p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && h.kind() == unix.S_IFDIR && h.covered {
		f.dirs[p] = h
	}
	return err
}

// planHiding takes in a directory with whiteouts of level k that shows nothing but what is in this level.
func (f *fixup) planHiding(k int, p string) error {
	if p == "." {
		return nil // roots always merge, with the upper directory's if with no other
	}
	for i, l := range slices.Backward(f.st) {
		attr, stops, err := l.look(p)
		if err != nil {
			return err
		}
		if i != k && attr != nil { // merged with another one, or hidden
			return nil
		}
		if stops {
			break
		}
	}
	h, err := f.st.find(f.top(), p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && h.kind() == unix.S_IFDIR {
		f.dirs[p] = h
	}
	return err
}

func (f *fixup) planMove(k int, p string, symlink *hit) error {
	h, real, err := f.st.resolve(k-1, p, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && h.kind() != unix.S_IFDIR {
		return nil // a symlink to a file: the directory hides it
	}
	now, err := f.st.find(f.top(), p)
	if err != nil || now.kind() != unix.S_IFLNK {
		return ignoreNotExist(err) // a layer above replaced the symlink
	}
	f.moves = append(f.moves, move{level: k, from: p, to: real, symlink: symlink})
	return nil
}

// planLink finds the file that a hard link of level k means: it was there before the layer came.
func (f *fixup) planLink(k int, link unpack.Link) error {
	target, err := f.linkTarget(k, string(link.Target))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: hard link target %q is in no layer below", unpack.ErrCorrupt, string(link.Target))
	}
	if err != nil {
		return err
	}
	if target.kind() == unix.S_IFDIR {
		return fmt.Errorf("%w: hard link to the directory %q", unpack.ErrCorrupt, string(link.Target))
	}
	name, err := f.real(k-1, string(link.Name))
	if err != nil {
		return err
	}
	if hidden, err := f.hiddenAbove(k, name); err != nil || hidden {
		return err
	}
	f.links[name] = target
	return nil
}

func (f *fixup) linkTarget(k int, target string) (*hit, error) {
	real, err := f.real(k-1, target)
	if err != nil {
		return nil, err
	}
	if h, ok := f.links[real]; ok { // a link to a link
		return h, nil
	}
	if k == 0 {
		return nil, fs.ErrNotExist
	}
	return f.st.find(k-1, real)
}

// real resolves the symlinks in a path's directories as they were in the levels up to top.
func (f *fixup) real(top int, p string) (string, error) {
	if top < 0 || path.Dir(p) == "." {
		return p, nil
	}
	_, dir, err := f.st.resolve(top, path.Dir(p), true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return path.Join(dir, path.Base(p)), nil
}

// hiddenAbove tells whether a layer above k has something else at p or hides it.
func (f *fixup) hiddenAbove(k int, p string) (bool, error) {
	for _, l := range f.st[k+1:] {
		attr, stops, err := l.look(p)
		if err != nil || attr != nil || stops {
			return true, err
		}
	}
	return false, nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// fixupKey is the identity of the fix-up layer of a chain: the same layers always need the same one.
func fixupKey(chain []digest.Digest) digest.Digest {
	var b strings.Builder
	b.WriteString("fix-up layer 2\n")
	for _, d := range chain {
		b.WriteString(d.String())
		b.WriteByte('\n')
	}
	return digest.FromString(b.String())
}

// fill makes the planned layer; it is a Fill.
func (f *fixup) fill(ctx context.Context, dir string) (unpack.Info, error) {
	m, err := newMaker(f.st, dir)
	if err != nil {
		return unpack.Info{}, err
	}
	defer m.close()
	for _, mv := range f.moves {
		if err := m.move(f, mv); err != nil {
			return unpack.Info{}, err
		}
	}
	for name, h := range f.links {
		if err := ctx.Err(); err != nil {
			return unpack.Info{}, context.Cause(ctx)
		}
		if err := m.link(name, h); err != nil {
			return unpack.Info{}, err
		}
	}
	for p := range f.dirs {
		if _, err := m.mkdirAll(p); err != nil {
			return unpack.Info{}, err
		}
	}
	return m.info, m.describe(f)
}

// move links what a level has in a directory to where it shows.
func (m *maker) move(f *fixup, mv move) error {
	names, err := m.list(mv.level, mv.from)
	if err != nil {
		return err
	}
	if _, err := m.mkdirAll(mv.to); err != nil {
		return err
	}
	for _, name := range names {
		if err := m.moveEntry(f, mv, name); err != nil {
			return err
		}
	}
	if mv.symlink == nil {
		return nil
	}
	return m.link(mv.from, mv.symlink)
}

func (m *maker) moveEntry(f *fixup, mv move, name string) error {
	from, to := path.Join(mv.from, name), path.Join(mv.to, name)
	l := f.st[mv.level]
	attr, _, err := l.look(from)
	if err != nil {
		return err
	}
	if attr != nil && attr.Mode&unix.S_IFMT == unix.S_IFDIR {
		if !l.implied[from] {
			m.attrs[to] = &hit{Stat_t: *attr, level: mv.level, path: from}
		}
		return m.move(f, move{level: mv.level, from: from, to: to})
	}
	if hidden, err := f.hiddenAbove(mv.level, to); err != nil || hidden {
		return err
	}
	if attr == nil {
		return m.whiteout(to)
	}
	return m.link(to, &hit{Stat_t: *attr, level: mv.level, path: from})
}

// describe gives every directory of the fix-up layer the attributes that it shall show.
func (m *maker) describe(f *fixup) error {
	made := slices.Sorted(slices.Values(m.made))
	for _, p := range made {
		h := m.attrs[p]
		if h == nil {
			var err error
			if h, err = f.st.find(f.top(), p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := m.copyAttrs(p, h); err != nil {
			return fmt.Errorf("fix-up layer: directory %q: %w", p, err)
		}
	}
	return nil
}
