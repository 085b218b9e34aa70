package image

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAssembledImages holds what overlayfs shows of several layers against what unpacking one onto the other gives.
func TestAssembledImages(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name   string
		layers [][]string
		want   []string
		fixup  bool
	}{
		{
			name: "whiteouts, opaque directories, made again",
			layers: [][]string{
				{"d .", "d a", "f a/1 x", "f a/2 x", "d b", "f b/1 x", "d c", "f c/1 x", "f gone x"},
				{"d .", "w gone", "d a", "w a/1", "d b", "f b/.wh..wh..opq", "f b/new y", "w c", "d c", "f c/2 y"},
			},
			want: []string{"d . 755 0:0", "d a 755 0:0", `f a/2 644 0:0 "x"`, "d b 755 0:0", `f b/new 644 0:0 "y"`, "d c 755 0:0", `f c/2 644 0:0 "y"`},
		},
		{
			name: "opaque root",
			layers: [][]string{
				{"d .", "f old x"},
				{"d . 700:1:1", "f .wh..wh..opq", "f new y"},
			},
			want: []string{"d . 700 1:1", `f new 644 0:0 "y"`},
		},
		{
			name: "implied directories keep what a layer below said",
			layers: [][]string{
				{"d . 750:3:4", "d tmp 1777:0:0", "d home 711:5:6", "d home/u 700:7:8"},
				{"f tmp/x 1", "f home/u/y 2", "f other/z 3"},
				{"f home/u/w 4"},
			},
			want: []string{"d . 750 3:4", "d home 711 5:6", "d home/u 700 7:8", `f home/u/w 644 0:0 "4"`, `f home/u/y 644 0:0 "2"`,
				"d other 755 0:0", `f other/z 644 0:0 "3"`, "d tmp 1777 0:0", `f tmp/x 644 0:0 "1"`},
			fixup: true,
		},
		{
			name: "an implied directory described again above needs nothing",
			layers: [][]string{
				{"d .", "d d 700:1:1"},
				{"d .", "f d/x 1"},
				{"d .", "d d 711:2:2"},
			},
			want: []string{"d . 755 0:0", "d d 711 2:2", `f d/x 644 0:0 "1"`},
		},
		{
			name: "hard links into layers below",
			layers: [][]string{
				{"d .", "f bin/busybox B", "l bin/sh bin/busybox", "f replaced old"},
				{"d .", "l bin/ls bin/busybox", "l bin/cat bin/ls", "l hidden bin/sh", "l replaced bin/busybox"},
				{"d .", "w hidden", "w bin/busybox", "l sbin/init bin/ls"},
			},
			want: []string{"d . 755 0:0", "d bin 755 0:0", `f bin/cat 644 0:0 "B"`, `f bin/ls 644 0:0 "B" = bin/cat`, `f bin/sh 644 0:0 "B" = bin/cat`,
				`f replaced 644 0:0 "B" = bin/cat`, "d sbin 755 0:0", `f sbin/init 644 0:0 "B" = bin/cat`},
			fixup: true,
		},
		{
			name: "a directory implied over a symlink",
			layers: [][]string{
				{"d .", "d usr", "d usr/lib 711:1:1", "f usr/lib/libc C", "f usr/lib/old o", "s lib usr/lib"},
				{"d .", "f lib/new N", "f lib/sub/deep D", "w lib/old"},
				{"d .", "f lib/new N2", "l lib/alias lib/libc"},
			},
			want: []string{"d . 755 0:0", "s lib -> usr/lib", "d usr 755 0:0", "d usr/lib 711 1:1", `f usr/lib/alias 644 0:0 "C"`,
				`f usr/lib/libc 644 0:0 "C" = usr/lib/alias`, `f usr/lib/new 644 0:0 "N2"`, "d usr/lib/sub 755 0:0", `f usr/lib/sub/deep 644 0:0 "D"`},
			fixup: true,
		},
		{
			name:   "the same layer twice, and empty ones",
			layers: [][]string{{"d .", "f a 1"}, {}, {"d .", "f a 2", "f b 2"}, {}, {"d .", "f a 1"}},
			want:   []string{"d . 755 0:0", `f a 644 0:0 "1"`, `f b 644 0:0 "2"`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := newRegistry(t)
			s := openStore(t, testConfig(t.TempDir()))
			var sp spec
			for _, lines := range tt.layers {
				sp.layers = append(sp.layers, layerTar(t, lines...))
			}
			reg.image(t, "x:1", sp)
			img, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
			if err != nil {
				t.Fatal(err)
			}
			rootfs, err := s.Lend(img.ID, "c")
			if err != nil {
				t.Fatal(err)
			}
			merged := overlay(t, rootfs.Lower)
			if diff := cmp.Diff(tt.want, listing(t, merged)); diff != "" {
				t.Errorf("merged (-want +got):\n%s", diff)
			}
			sameDirs(t, s, img.ID, merged)
			if r, _ := s.find(img.ID); (r.Fixup != "") != tt.fixup {
				t.Errorf("fix-up layer %q, want one: %v", r.Fixup, tt.fixup)
			}
			if err := s.Return(img.ID, "c"); err != nil {
				t.Fatal(err)
			}
			if err := s.Remove(t.Context(), img.ID); err != nil {
				t.Fatal(err)
			}
			empty(t, s)
		})
	}
}

// sameDirs wants each directory, lent alone, to show what it shows in the whole image.
func sameDirs(t *testing.T, s *Store, id, merged string) {
	t.Helper()
	for _, line := range listing(t, merged) {
		f := strings.Fields(line)
		if f[0] == "f" {
			if _, err := s.LendDir(id, "c", f[1]); !errors.Is(err, ErrNotDirectory) {
				t.Errorf("file %s lent as a directory: %v", f[1], err)
			}
			continue
		}
		rootfs, err := s.LendDir(id, "c", f[1]) // the symlinks are to directories
		if err != nil {
			t.Errorf("%s: %v", f[1], err)
			continue
		}
		if diff := cmp.Diff(listing(t, filepath.Join(merged, f[1])+"/."), listing(t, overlay(t, rootfs.Lower))); diff != "" {
			t.Errorf("%s alone (-in the image +alone):\n%s", f[1], diff)
		}
	}
}

func TestLendDir(t *testing.T) {
	needRoot(t)
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	reg.image(t, "x:1", spec{layers: [][]byte{
		layerTar(t, "d .", "d a", "d a/b", "f a/b/low 1", "s up ../../../a", "s abs /a/b", "s loop loop", "s gone nowhere"),
		layerTar(t, "d .", "d a", "d a/b", "f a/b/high 2"),
	}})
	img, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		dir  string
		want []string
		err  error
	}{
		{dir: "a/b", want: []string{"d . 755 0:0", `f high 644 0:0 "2"`, `f low 644 0:0 "1"`}},
		{dir: "abs", want: []string{"d . 755 0:0", `f high 644 0:0 "2"`, `f low 644 0:0 "1"`}},
		{dir: "up/b/", want: []string{"d . 755 0:0", `f high 644 0:0 "2"`, `f low 644 0:0 "1"`}},
		{dir: "../../a/./b", want: []string{"d . 755 0:0", `f high 644 0:0 "2"`, `f low 644 0:0 "1"`}},
		{dir: "a/b/low", err: ErrNotDirectory},
		{dir: "a/b/low/x", err: fs.ErrNotExist},
		{dir: "a/none", err: fs.ErrNotExist},
		{dir: "gone", err: fs.ErrNotExist},
		{dir: "loop", err: fs.ErrNotExist},
	} {
		rootfs, err := s.LendDir(img.ID, "c "+tt.dir, tt.dir)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.dir, err, tt.err)
		}
		if err != nil {
			continue
		}
		if diff := cmp.Diff(tt.want, listing(t, overlay(t, rootfs.Lower))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.dir, diff)
		}
		if err := s.Return(img.ID, "c "+tt.dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.LendDir("sha256:"+strings.Repeat("0", 64), "c", "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an image that is not there: %v", err)
	}
	// What was refused is not lent: the image goes at once.
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
}

// TestContainerWithSeveralImages: each lend ends alone, and an image that was removed goes with its own.
func TestContainerWithSeveralImages(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	var ids []string
	for _, name := range []string{"x:1", "y:1"} {
		reg.image(t, name, spec{layers: [][]byte{layerTar(t, "d .", "f "+name+" 1")}})
		img, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/" + name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lend(img.ID, "c"); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.ID)
	}
	if err := s.Return(ids[0], "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lend(ids[0], "d"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an image that was removed and returned: %v", err)
	}
	if r, err := s.Lend(ids[1], "c"); err != nil || len(listing(t, r.Lower[0])) != 2 {
		t.Errorf("the other image: %v %v", r, err)
	}
	if err := errors.Join(s.Return(ids[1], "c"), s.Return(ids[1], "c")); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
}

func TestHardLinkToNothingIsRefused(t *testing.T) {
	for _, layers := range [][]string{{"l name nowhere/file"}, {"d d", "f x 1"}} {
		reg := newRegistry(t)
		s := openStore(t, testConfig(t.TempDir()))
		sp := spec{layers: [][]byte{layerTar(t, layers...), layerTar(t, "l name nowhere/file")}}
		reg.image(t, "x:1", sp)
		_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), `entry "name"`) || !strings.Contains(err.Error(), "nowhere/file") {
			t.Errorf("error = %v; want ErrCorrupt naming entry and target", err)
		}
		empty(t, s)
	}
}

func TestAccounts(t *testing.T) {
	long := strings.Repeat("u:x:1:1::/:/bin/sh\n", 70_000) // 1.3 MB
	tests := []struct {
		name   string
		layers [][]string
		passwd string
		group  string
	}{
		{"none", [][]string{{"f x 1"}}, "", ""},
		{"no layers", nil, "", ""},
		{"topmost wins", [][]string{{"f etc/passwd old", "f etc/group g"}, {"f etc/passwd new"}}, "new", "g"},
		{"removed", [][]string{{"f etc/passwd old", "f etc/group g"}, {"w etc/passwd", "w etc"}}, "", ""},
		{"through symlinks in several layers", [][]string{{"f usr/share/accounts/passwd P"}, {"s etc/passwd /link/passwd"}, {"s link usr/share/accounts"}}, "P", ""},
		{"dangling, looping, and a device", [][]string{{"s etc/passwd ../../nowhere", "s etc/group group"}}, "", ""},
		{"hard link into a layer below", [][]string{{"f a P"}, {"l etc/passwd a"}}, "P", ""},
		{"cut after a line at 1 MiB", [][]string{{"f etc/passwd " + long}}, long[:(1<<20)/19*19], ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := newRegistry(t)
			s := openStore(t, testConfig(t.TempDir()))
			var sp spec
			for _, lines := range tt.layers {
				sp.layers = append(sp.layers, layerTar(t, lines...))
			}
			reg.image(t, "x:1", sp)
			img, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{tt.passwd, tt.group}, []string{string(img.Passwd), string(img.Group)}); diff != "" {
				t.Errorf("passwd, group (-want +got):\n%s", diff)
			}
		})
	}
}
