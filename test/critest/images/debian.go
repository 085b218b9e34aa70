package images

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
)

// packages are the Debian packages that the images are made of, with all that
// their programs link to. A library that is missing here is an error of the
// build (addELF), never of a container.
var packages = []string{
	"apache2-bin", "busybox", "busybox-static", "libapr1", "libaprutil1", "libc6", "libcrypt1",
	"libexpat1", "libpcre2-8-0", "libssl3", "libuuid1", "nginx", "zlib1g",
}

// fetchPackages returns the .deb file of each package, downloading into dir
// what is not there yet. It neither installs anything nor asks dpkg.
func fetchPackages(ctx context.Context, dir string, logf func(string, ...any)) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files, missing := findPackages(dir)
	if len(missing) == 0 {
		return files, nil
	}
	logf("downloading %d Debian packages", len(missing))
	download := append([]string{"download"}, missing...)
	if err := aptGet(ctx, dir, download...); err != nil {
		// A fresh machine has no package lists yet.
		if err := aptGet(ctx, dir, "update"); err != nil {
			return nil, err
		}
		if err := aptGet(ctx, dir, download...); err != nil {
			return nil, err
		}
	}
	files, missing = findPackages(dir)
	if len(missing) > 0 {
		return nil, fmt.Errorf("download packages: apt-get download left out %s", strings.Join(missing, ", "))
	}
	return files, nil
}

func findPackages(dir string) (files, missing []string) {
	for _, name := range packages {
		found, _ := filepath.Glob(filepath.Join(dir, name+"_*_"+runtime.GOARCH+".deb"))
		if len(found) == 0 {
			missing = append(missing, name)
			continue
		}
		sort.Strings(found)
		files = append(files, found[len(found)-1])
	}
	return files, missing
}

func aptGet(ctx context.Context, dir string, args ...string) error {
	// The sandbox user of apt may not write into dir.
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "-o", "APT::Sandbox::User=root"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run apt-get %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// readPackage reads what a .deb file would install.
func readPackage(ctx context.Context, file string) (Tree, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read package %s: %w: %s", file, err, bytes.TrimSpace(stderr.Bytes()))
	}
	tree := Tree{}
	in := tar.NewReader(bytes.NewReader(out))
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return tree, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read package %s: %w", file, err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read package %s: %s: %w", file, header.Name, err)
		}
		n := node{Type: header.Typeflag, Mode: header.Mode, UID: header.Uid, GID: header.Gid, Data: data, Link: header.Linkname}
		if n.Type == tar.TypeLink {
			n.Link = clean(n.Link)
		}
		tree[clean(header.Name)] = n
	}
}

// addELF copies a program or shared object of the packages into the tree,
// together with its interpreter and the libraries it needs, to any depth.
func (t Tree) addELF(pool Tree, from, to string) error {
	n, err := pool.Resolve(from)
	if err != nil {
		return err
	}
	t.File(to, 0o755, n.Data)
	file, err := elf.NewFile(bytes.NewReader(n.Data))
	if err != nil {
		return fmt.Errorf("read program %s: %w", from, err)
	}
	for _, p := range file.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("read interpreter of %s: %w", from, err)
		}
		interpreter := strings.TrimRight(string(name), "\x00")
		n, err := pool.Resolve(interpreter)
		if err != nil {
			return err
		}
		t.File(interpreter, 0o755, n.Data)
	}
	needed, err := file.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read libraries of %s: %w", from, err)
	}
	for _, name := range needed {
		if err := t.addLibrary(pool, from, name); err != nil {
			return err
		}
	}
	return nil
}

func (t Tree) addLibrary(pool Tree, user, soname string) error {
	if strings.HasPrefix(soname, "ld-linux") {
		return nil // the interpreter, which is at the place that PT_INTERP names
	}
	found := pool.paths(soname)
	if len(found) == 0 {
		return fmt.Errorf("add library %s of %s: not in the packages; add its package to the list in images/debian.go", soname, user)
	}
	if _, done := t[found[0]]; done {
		return nil
	}
	return t.addELF(pool, found[0], found[0])
}

// paths lists where a library of that name lies, in the directories that
// Debian's dynamic linker searches: lib/<triplet> and usr/lib/<triplet>.
func (t Tree) paths(base string) []string {
	var found []string
	for name := range t {
		dir := path.Dir(path.Dir(name))
		if path.Base(name) == base && (dir == "lib" || dir == "usr/lib") {
			found = append(found, name)
		}
	}
	sort.Strings(found)
	return found
}
