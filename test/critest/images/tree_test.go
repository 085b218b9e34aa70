package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWriteTarIsOrderedAndComplete(t *testing.T) {
	tree := Tree{}
	tree.Hardlink("bin/a", "bin/z")
	tree.Text("/bin/z", "z")
	tree.Whiteout("etc/old/file")
	tree.Symlink("lib64", "lib")
	tree.Dir("tmp", 0o1777)
	var first, second bytes.Buffer
	if err := errors.Join(tree.WriteTar(&first), tree.WriteTar(&second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two writes of one tree differ")
	}
	var names []string
	in := tar.NewReader(&first)
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(epoch) {
			t.Errorf("%s has time %v", header.Name, header.ModTime)
		}
		if header.Name == "bin/a" && header.Mode != 0o644 {
			t.Errorf("hard link has mode %o, not that of its file", header.Mode)
		}
		names = append(names, header.Name)
	}
	want := []string{"bin/", "bin/z", "etc/", "etc/old/", "etc/old/.wh.file", "lib64", "tmp/", "bin/a"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestResolve(t *testing.T) {
	tree := Tree{}
	tree.Symlink("lib64/ld.so", "/lib/arch/ld.so")
	tree.Text("usr/lib/arch/ld.so", "found")
	tree.Symlink("lib", "usr/lib")
	tree.Symlink("loop", "loop")
	if n, err := tree.Resolve("/lib64/ld.so"); err != nil || string(n.Data) != "found" {
		t.Errorf("resolve through two links: %q, %v", n.Data, err)
	}
	for _, name := range []string{"loop", "lib/absent"} {
		if _, err := tree.Resolve(name); err == nil {
			t.Errorf("resolve %s succeeded", name)
		}
	}
}

func TestSplitRef(t *testing.T) {
	for _, row := range []struct{ name, ref, host, repo, tag string }{
		{"tag", "gcr.io/a/b:c", "gcr.io", "a/b", "c"},
		{"no tag", "gcr.io/a/b", "gcr.io", "a/b", ""},
		{"port", "localhost:5000/a:1", "localhost:5000", "a", "1"},
	} {
		host, repo, tag := SplitRef(row.ref)
		if diff := cmp.Diff([]string{row.host, row.repo, row.tag}, []string{host, repo, tag}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}
