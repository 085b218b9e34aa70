package images

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"time"
)

// epoch is the time of every file in every layer and of every image. A
// layer's digest must depend on what is in it and on nothing else.
var epoch = time.Unix(1577836800, 0).UTC() // 2020-01-01

// node is one entry of a Tree. A hard link is a node whose Type is
// tar.TypeLink and whose Link names another path of the same tree.
type node struct {
	Type     byte // a tar type flag
	Mode     int64
	UID, GID int
	Data     []byte
	Link     string
}

// Tree is a file tree in memory: clean relative paths ("usr/sbin/nginx") to
// entries. Writing one out makes the parents that were not named.
type Tree map[string]node

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// File puts a regular file of root's.
func (t Tree) File(name string, mode int64, data []byte) {
	t[clean(name)] = node{Type: tar.TypeReg, Mode: mode, Data: data}
}

// Text puts a regular file of root's that anybody may read.
func (t Tree) Text(name, text string) { t.File(name, 0o644, []byte(text)) }

// Dir puts a directory of root's.
func (t Tree) Dir(name string, mode int64) {
	t[clean(name)] = node{Type: tar.TypeDir, Mode: mode}
}

// Symlink puts a symbolic link.
func (t Tree) Symlink(name, target string) {
	t[clean(name)] = node{Type: tar.TypeSymlink, Mode: 0o777, Link: target}
}

// Hardlink puts another name for a file of the same tree.
func (t Tree) Hardlink(name, existing string) {
	t[clean(name)] = node{Type: tar.TypeLink, Link: clean(existing)}
}

// Whiteout hides a path of the layers below (image-spec, layer.md#whiteouts).
func (t Tree) Whiteout(name string) {
	name = clean(name)
	t.File(path.Join(path.Dir(name), ".wh."+path.Base(name)), 0o644, nil)
}

// Merge copies every entry of other over t.
func (t Tree) Merge(other Tree) {
	for name, n := range other {
		t[name] = n
	}
}

// Resolve follows symbolic links, in any component, to the entry that a path
// means. It returns an error for a path that leads nowhere.
func (t Tree) Resolve(name string) (node, error) {
	at := clean(name)
	for range 40 { // what Linux allows (path_resolution(7))
		prefix, rest, found := t.firstLink(at)
		if !found {
			n, ok := t[at]
			if !ok {
				return node{}, fmt.Errorf("resolve %s: no %s in the packages", name, at)
			}
			return n, nil
		}
		target := t[prefix].Link
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(prefix), target)
		}
		at = clean(path.Join(target, rest))
	}
	return node{}, fmt.Errorf("resolve %s: too many symbolic links", name)
}

// firstLink splits a path behind its first component that is a link.
func (t Tree) firstLink(name string) (prefix, rest string, found bool) {
	parts := strings.Split(name, "/")
	for i := range parts {
		prefix = strings.Join(parts[:i+1], "/")
		if n, ok := t[prefix]; ok && n.Type == tar.TypeSymlink {
			return prefix, strings.Join(parts[i+1:], "/"), true
		}
	}
	return "", "", false
}

// WriteTar writes the tree: sorted, parents first, hard links after all that
// they may name, one time for all.
func (t Tree) WriteTar(w io.Writer) error {
	out := tar.NewWriter(w)
	for _, name := range t.order() {
		n, ok := t[name]
		if !ok {
			n = node{Type: tar.TypeDir, Mode: 0o755}
		}
		if n.Type == tar.TypeLink {
			// tar(1) writes the attributes of the file with every name, and
			// runtimes set what they read there.
			target := t[n.Link]
			n.Mode, n.UID, n.GID = target.Mode, target.UID, target.GID
		}
		header := &tar.Header{
			Typeflag: n.Type, Name: name, Linkname: n.Link, Size: int64(len(n.Data)),
			Mode: n.Mode, Uid: n.UID, Gid: n.GID, ModTime: epoch, Format: tar.FormatPAX,
		}
		if n.Type == tar.TypeDir {
			header.Name += "/"
		}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write layer entry %s: %w", name, err)
		}
		if _, err := out.Write(n.Data); err != nil {
			return fmt.Errorf("write layer entry %s: %w", name, err)
		}
	}
	return out.Close()
}

// order lists the paths of the tree and of the parents they imply.
func (t Tree) order() []string {
	seen := map[string]bool{}
	var names, links []string
	for name, n := range t {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, named := t[dir]; !named && !seen[dir] {
				seen[dir] = true
				names = append(names, dir)
			}
		}
		if n.Type == tar.TypeLink {
			links = append(links, name)
		} else {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	sort.Strings(links)
	return append(names, links...)
}
