package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var past = time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC)

// needRoot skips where whiteouts, owners and trusted attributes cannot be made.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mknod of whiteouts and trusted.* extended attributes")
	}
}

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Linkname: content}
}

func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }

func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
}

// makeTar writes headers; a regular file's content is in its Linkname.
func makeTar(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		var content string
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.ModTime.IsZero() {
			h.ModTime = past
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("write header %q: %v", h.Name, err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func unpackTar(t testing.TB, data []byte) (string, Info, error) {
	t.Helper()
	root := t.TempDir()
	info, err := Tar(t.Context(), root, bytes.NewReader(data), Limits{})
	return root, info, err
}

// describe lists a tree, one line an entry, with what overlayfs needs to see.
func describe(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" links=%d %q", st.Nlink, b)
		case unix.S_IFLNK:
			to, _ := os.Readlink(p)
			line += " -> " + to
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		value := make([]byte, 256)
		if n, err := unix.Lgetxattr(p, opaqueXattr, value); err == nil {
			line += " opaque=" + string(value[:n])
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestTar(t *testing.T) {
	needRoot(t)
	owned := func(h tar.Header, mode int64, uid, gid int) tar.Header {
		h.Mode, h.Uid, h.Gid = mode, uid, gid
		return h
	}
	const root = ". 40755 0:0"
	tests := []struct {
		name    string
		headers []tar.Header
		want    []string
		implied []Path
		links   []Link
		opaque  bool
	}{
		{
			name:    "owners and modes, setuid survives the chown",
			headers: []tar.Header{owned(dir("./"), 0o750, 1, 2), owned(dir("./d/"), 0o2775, 3, 4), owned(file("./d/su", "x"), 0o4755, 5, 6)},
			want:    []string{". 40750 1:2", "d 42775 3:4", `d/su 104755 5:6 links=1 "x"`},
		},
		{
			name:    "file in a setgid directory keeps its own group",
			headers: []tar.Header{dir("."), owned(dir("d"), 0o2755, 0, 9), file("d/f", ""), file("d/e/f", "")},
			want:    []string{root, "d 42755 0:9", "d/e 40755 0:0", `d/e/f 100644 0:0 links=1 ""`, `d/f 100644 0:0 links=1 ""`},
			implied: []Path{"d/e"},
		},
		{
			name:    "implied directories",
			headers: []tar.Header{file("a/b/f", "1"), dir("a/b"), file("/c/../abs", "2")},
			want:    []string{root, "a 40755 0:0", "a/b 40755 0:0", `a/b/f 100644 0:0 links=1 "1"`, `abs 100644 0:0 links=1 "2"`},
			implied: []Path{".", "a"},
		},
		{
			name:    "whiteouts, opaque, AUFS bookkeeping",
			headers: []tar.Header{dir("."), dir("d"), file("d/.wh..wh..opq", ""), file("d/f", ""), file("d/.wh.gone", ""), dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", ""), file(".wh..wh.aufs", "")},
			want:    []string{root, "d 40755 0:0 opaque=y", `d/f 100644 0:0 links=1 ""`, "d/gone 20000 0:0 dev=0:0"},
		},
		{
			name:    "opaque root is reported, overlayfs would not see it",
			headers: []tar.Header{dir("."), file(".wh..wh..opq", "")},
			want:    []string{root},
			opaque:  true,
		},
		{
			name:    "removed and made again in one layer, either order",
			headers: []tar.Header{dir("."), file(".wh.a", ""), dir("a"), dir("b"), file(".wh.b", ""), file(".wh.c", ""), file("c", "new"), file("e", "kept"), file(".wh.e", ""), file(".wh.g", ""), file("g/h", "")},
			want:    []string{root, "a 40755 0:0 opaque=y", "b 40755 0:0 opaque=y", `c 100644 0:0 links=1 "new"`, `e 100644 0:0 links=1 "kept"`, "g 40755 0:0 opaque=y", `g/h 100644 0:0 links=1 ""`},
		},
		{
			name:    "an implied directory that a whiteout follows has nothing to inherit",
			headers: []tar.Header{dir("."), file("a/f", ""), file(".wh.a", "")},
			want:    []string{root, "a 40755 0:0 opaque=y", `a/f 100644 0:0 links=1 ""`},
		},
		{
			name:    "the last entry of a name wins",
			headers: []tar.Header{dir("."), file("f", "1"), file("f", "2"), dir("d"), file("d/x", ""), dir("d/y"), file("d", "file"), file("e", ""), dir("e"), symlink("s", "x"), symlink("s", "y")},
			want:    []string{root, `d 100644 0:0 links=1 "file"`, "e 40755 0:0 opaque=y", `f 100644 0:0 links=1 "2"`, "s 120777 0:0 -> y"},
		},
		{
			name:    "hard links inside, before their target, to a symlink",
			headers: []tar.Header{dir("."), link("early", "f"), file("f", "x"), link("d/late", "f"), dir("d"), symlink("s", "f"), link("s2", "./s")},
			want:    []string{root, "d 40755 0:0", `d/late 100644 0:0 links=3 "x"`, `early 100644 0:0 links=3 "x"`, `f 100644 0:0 links=3 "x"`, "s 120777 0:0 -> f", "s2 120777 0:0 -> f"},
		},
		{
			name:    "hard links to the layers below are recorded",
			headers: []tar.Header{dir("."), file("old", "1"), link("old", "below/f"), link("new", "/below/g"), link("taken", "below/h"), file("taken", "t"), file(".wh.w", ""), link("n", "w")},
			want:    []string{root, `taken 100644 0:0 links=1 "t"`, "w 20000 0:0 dev=0:0"},
			links:   []Link{{"old", "below/f"}, {"new", "below/g"}, {"n", "w"}},
		},
		{
			name:    "symlinks resolve inside the root",
			headers: []tar.Header{dir("."), symlink("abs", "/t"), file("abs/f", "1"), symlink("up", "../../../t/u"), file("up/f", "2"), symlink("t/self", "."), file("t/self/self/g", "3")},
			want:    []string{root, "abs 120777 0:0 -> /t", "t 40755 0:0", `t/f 100644 0:0 links=1 "1"`, `t/g 100644 0:0 links=1 "3"`, "t/self 120777 0:0 -> .", "t/u 40755 0:0", `t/u/f 100644 0:0 links=1 "2"`, "up 120777 0:0 -> ../../../t/u"},
			implied: []Path{"t", "t/u"},
		},
		{
			name: "devices and fifos",
			headers: []tar.Header{dir("."), {Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, {Typeflag: tar.TypeBlock, Name: "loop", Mode: 0o660, Devmajor: 7, Gid: 6},
				{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o4711, Uid: 7}, {Typeflag: tar.TypeBlock, Name: "b0", Mode: 0o600}},
			want: []string{root, "b0 60600 0:0 dev=0:0", "loop 60660 0:6 dev=7:0", "null 20666 0:0 dev=1:3", "p 14711 7:0"},
		},
		{
			name:    "names that are not UTF-8, and long ones",
			headers: []tar.Header{dir("."), dir("\xff\xfe"), file("\xff\xfe/\x80", "x"), file(strings.Repeat("l", 255), "y")},
			want:    []string{root, strings.Repeat("l", 255) + ` 100644 0:0 links=1 "y"`, "\xff\xfe 40755 0:0", "\xff\xfe/\x80" + ` 100644 0:0 links=1 "x"`},
		},
		{name: "empty tar", want: []string{root}, implied: []Path{"."}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, info, err := unpackTar(t, makeTar(t, tt.headers...))
			if err != nil {
				t.Fatal(err)
			}
			lines := describe(t, got)
			// t.TempDir has the umask's mode and the root is implied unless listed.
			if !slices.ContainsFunc(tt.headers, func(h tar.Header) bool { return filepath.Clean(h.Name) == "." }) {
				lines[0] = root
			}
			if diff := cmp.Diff(tt.want, lines); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.implied, info.Implied); diff != "" {
				t.Errorf("implied (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.links, info.Links); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
			if info.OpaqueRoot != tt.opaque {
				t.Errorf("OpaqueRoot = %v", info.OpaqueRoot)
			}
		})
	}
}

func TestTimesAndXattrs(t *testing.T) {
	needRoot(t)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep, linux/capability.h
	f := file("d/f", "x")
	f.Uid, f.PAXRecords = 12, map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hi\x00there"}
	d := dir("d")
	d.PAXRecords = map[string]string{"SCHILY.xattr.user.dir": "yes"}
	s := symlink("d/s", "f")
	s.PAXRecords = map[string]string{"SCHILY.xattr.user.no": "1"}
	root, info, err := unpackTar(t, makeTar(t, dir("."), d, f, s, file("d/late", "")))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ path, name, want string }{
		{"d/f", "security.capability", capability}, {"d/f", "user.note", "hi\x00there"}, {"d", "user.dir", "yes"},
	} {
		value := make([]byte, 64)
		n, err := unix.Lgetxattr(filepath.Join(root, x.path), x.name, value)
		if err != nil || string(value[:n]) != x.want {
			t.Errorf("%s of %s = %q, %v; want %q", x.name, x.path, value[:max(n, 0)], err, x.want)
		}
	}
	if info.NoXattr != 1 {
		t.Errorf("NoXattr = %d, want 1 (user.* on a symlink)", info.NoXattr)
	}
	for _, p := range []string{".", "d", "d/f", "d/s"} {
		fi, err := os.Lstat(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		if !fi.ModTime().Equal(past) {
			t.Errorf("mtime of %s = %v, want %v", p, fi.ModTime(), past)
		}
	}
}

func TestHostileEntriesAreRefusedByName(t *testing.T) {
	needRoot(t)
	xattr := func(name string) tar.Header {
		h := file("etc/x", "")
		h.PAXRecords = map[string]string{"SCHILY.xattr." + name: "y"}
		return h
	}
	many := "a" + strings.Repeat("/a", maxDepth)
	tests := []struct {
		name    string
		headers []tar.Header
		entry   string // must be in the error
		reason  string
	}{
		{"climbs out", []tar.Header{file("../evil", "")}, `entry "../evil"`, "out of the layer's root"},
		{"climbs out late", []tar.Header{file("a/../../evil", "")}, `entry "a/../../evil"`, "out of the layer's root"},
		{"hard link climbs out", []tar.Header{link("l", "../../etc/shadow")}, `entry "l"`, "out of the layer's root"},
		{"hard link to a directory", []tar.Header{dir("d"), link("l", "d")}, `entry "l"`, "directory"},
		{"whiteout of dot dot", []tar.Header{file("a/.wh...", "")}, `entry "a/.wh..."`, "whiteout"},
		{"whiteout of nothing", []tar.Header{file(".wh.", "")}, `entry ".wh."`, "whiteout"},
		{"trusted.overlay", []tar.Header{xattr("trusted.overlay.redirect")}, `entry "etc/x"`, "overlayfs"},
		{"user.overlay", []tar.Header{xattr("user.overlay.whiteout")}, `entry "etc/x"`, "overlayfs"},
		{"whiteout device", []tar.Header{{Typeflag: tar.TypeChar, Name: "dev/null"}}, `entry "dev/null"`, "0:0"},
		{"root as a symlink", []tar.Header{symlink(".", "/etc")}, `entry "."`, "root"},
		{"symlink loop", []tar.Header{symlink("a", "b"), symlink("b", "a"), file("a/f", "")}, `entry "a/f"`, "symbolic links"},
		{"below a file", []tar.Header{file("a", ""), file("a/f", "")}, `entry "a/f"`, "not a directory"},
		{"too deep", []tar.Header{dir(many)}, `entry "a/a/`, "components"},
		{"owner -1", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", Uid: 1<<32 - 1}}, `entry "f"`, "uid"},
		{"unknown type", []tar.Header{{Typeflag: 'Z', Name: "z"}}, `entry "z"`, "unknown type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The target sits in a directory whose neighbours must stay as they are.
			outer := t.TempDir()
			root := filepath.Join(outer, "l")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := Tar(t.Context(), root, bytes.NewReader(makeTar(t, tt.headers...)), Limits{})
			if err == nil || !strings.Contains(err.Error(), tt.entry) || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("error = %v; want %q and %q in it", err, tt.entry, tt.reason)
			}
			if names, _ := os.ReadDir(outer); len(names) != 1 {
				t.Errorf("outside the root: %v", names)
			}
		})
	}
}

func TestNegativeSizeAndLimits(t *testing.T) {
	needRoot(t)
	data := makeTar(t, file("f", "0123456789"), file("g", "0123456789"))
	for _, limits := range []Limits{{Bytes: 15}, {Entries: 1}} {
		if _, err := Tar(t.Context(), t.TempDir(), bytes.NewReader(data), limits); !errors.Is(err, ErrCorrupt) {
			t.Errorf("limits %+v: error = %v, want ErrCorrupt", limits, err)
		}
	}
	// A base-256 size of -1, tar(5), with its checksum put right.
	copy(data[124:136], bytes.Repeat([]byte{0xff}, 12))
	sum := 0
	copy(data[148:156], "        ")
	for _, b := range data[:512] {
		sum += int(b)
	}
	copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
	_, _, err := unpackTar(t, data)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "entry 1") {
		t.Errorf("negative size: error = %v, want ErrCorrupt naming entry 1", err)
	}
}

func TestSparseKeepsHoles(t *testing.T) {
	needRoot(t)
	// A PAX 1.0 sparse file as GNU tar writes it: 8 MiB with 5 bytes at the end.
	const size, off = 8 << 20, 8<<20 - 5
	m := fmt.Sprintf("1\n%d\n5\n", off)
	body := m + strings.Repeat("\x00", 512-len(m)) + "tail!"
	h := tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/s", Mode: 0o600, Linkname: body, PAXRecords: map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": fmt.Sprint(size),
	}}
	root, _, err := unpackTar(t, rawPAX(t, h))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "s"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d in %d bytes of blocks; want %d and holes", st.Size, st.Blocks*512, size)
	}
}

// rawPAX writes a header with PAX records that archive/tar refuses to write.
func rawPAX(t *testing.T, h tar.Header) []byte {
	t.Helper()
	var records strings.Builder
	for k, v := range h.PAXRecords {
		n := len(k) + len(v) + 3
		for len(fmt.Sprint(n))+len(k)+len(v)+3 != n {
			n = len(fmt.Sprint(n)) + len(k) + len(v) + 3
		}
		fmt.Fprintf(&records, "%d %s=%s\n", n, k, v)
	}
	h.PAXRecords = nil
	ext := makeTar(t, tar.Header{Typeflag: tar.TypeReg, Name: "x", Mode: 0o600, Linkname: records.String(), ModTime: time.Unix(1, 0)})
	ext = ext[:512+(records.Len()+511)/512*512]
	ext[156] = tar.TypeXHeader
	sum := 0
	copy(ext[148:156], "        ")
	for _, b := range ext[:512] {
		sum += int(b)
	}
	copy(ext[148:156], fmt.Sprintf("%06o\x00 ", sum))
	h.ModTime = time.Unix(1, 0)
	return append(ext, makeTar(t, h)...)
}
