package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// message writes protocol buffers: pairs of a field's number and its value, a number, text or message.
func message(pairs ...any) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		number := uint64(pairs[i].(int))
		switch v := pairs[i+1].(type) {
		case int:
			b = binary.AppendUvarint(binary.AppendUvarint(b, number<<3), uint64(v))
		case string:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, number<<3|2), uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, number<<3|2), uint64(len(v))), v...)
		}
	}
	return b
}

func file(messages ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, 0x1234)
	for _, m := range messages {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(m))), m...)
	}
	return b
}

// sample are images of a shell with one thread in namespaces of its own, as tests change them.
type sample struct {
	host, ids  []any // fields
	creds      []any
	seccomp    int
	mounts     [][]any
	extraInTop []byte // appended to the core entry
}

func newSample() *sample {
	return &sample{
		host:    []any{5, 1, 6, 1, 9, 1},
		ids:     []any{1, 1, 2, 1, 3, 1, 4, 1, 5, 2, 6, 2, 9, 2},
		creds:   []any{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 9, 0, 10, 0x20, 10, 0, 11, 0x20, 11, 0, 12, 0x20, 12, 0, 13, 0, 18, 1},
		seccomp: 2,
		mounts: [][]any{
			{1, 0, 2, 10, 3, 77, 4, 1, 5, 1, 6, "/srv/rootfs", 7, "./"},
			{1, TypeProc, 2, 11, 3, 78, 4, 10, 5, 0, 6, "/", 7, "./proc"},
			{1, TypeProc, 2, 12, 3, 78, 4, 11, 5, 1, 6, "/sys", 7, "./proc/sys"},
			{1, 3, 2, 13, 3, 79, 4, 11, 5, 0, 6, "/null", 7, "./proc/kcore", 13, 1, 18, "/proc/kcore"},
			{1, 0, 2, 14, 3, 80, 4, 10, 5, 0, 6, "/data", 7, "./data", 18, "/data"},
		},
	}
}

func (s *sample) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	var mounts [][]byte
	for _, m := range s.mounts {
		mounts = append(mounts, message(m...))
	}
	core := message(1, 1, 3, message(1, 1, 2, 0, 6, "sh", 15, "a", 15, "b"), 5, message(10, message(s.creds...), 11, s.seccomp))
	for name, text := range map[string][]byte{
		"inventory.img":     file(message(1, 2, 3, message(s.host...))),
		"pstree.img":        file(message(1, 1, 2, 0, 3, 1, 4, 1, 5, 1)),
		"ids-1.img":         file(message(s.ids...)),
		"core-1.img":        file(append(core, s.extraInTop...)),
		"mountpoints-2.img": file(mounts...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// grant gives what the sample has, and no more.
func grant() Grant {
	return Grant{
		UIDs: []uint32{0}, GIDs: []uint32{0}, Bounding: 0x20, Caps: 0x20, NoNewPrivs: true, Seccomp: true, Labels: []string{""},
		Namespaces: []string{"pid", "net", "mnt"}, Types: []uint64{TypeProc}, ReadonlyRoot: true,
		Readonly: []string{"/proc/sys"}, Masked: []string{"/proc/kcore"},
		Sources: func(point string) string {
			return map[string]string{"/data": "/srv/data", "/proc/kcore": "/dev/null"}[point]
		},
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*sample, *Grant)
		words  string // of the refusal; "" for none
	}{
		{"as granted", func(*sample, *Grant) {}, ""},
		{"another uid", func(s *sample, _ *Grant) { s.creds[5] = 1000 }, "uid 1000 is not that of process.user"},
		{"another uid that may be", func(s *sample, g *Grant) { s.creds[5], g.AnyUID = 1000, true }, ""},
		{"a group", func(s *sample, _ *Grant) { s.creds = append(s.creds, 14, 5) }, "gid 5 is none of process.user's"},
		{"packed groups", func(s *sample, _ *Grant) { s.creds = append(s.creds, 14, []byte{0, 6}) }, "gid 6 is none of process.user's"},
		{"a capability", func(s *sample, _ *Grant) { s.creds[25] = 0x200020 }, `capabilities 0x200000 in the set "eff"`},
		{"a capability of the second word", func(s *sample, _ *Grant) { s.creds[23] = 1 }, `capabilities 0x100000000 in the set "prm"`},
		{"an ambient one", func(s *sample, _ *Grant) { s.creds = append(s.creds, 19, 0x40) }, `in the set "amb"`},
		{"a wider bounding set", func(s *sample, _ *Grant) { s.creds[29] = 0xff }, `in the set "bnd"`},
		{"no no_new_privs", func(s *sample, _ *Grant) { s.creds[len(s.creds)-1] = 0 }, "no_new_privs is not set"},
		{"no filter", func(s *sample, _ *Grant) { s.seccomp = 0 }, "has no seccomp filter"},
		{"a label", func(s *sample, _ *Grant) { s.creds = append(s.creds, 15, "other") }, `the security label "other"`},
		{"the host's mounts", func(s *sample, _ *Grant) { s.host[5] = 2 }, "it is in the mnt namespace of the host"},
		{"no network namespace", func(s *sample, _ *Grant) { s.ids[11] = 0 }, "it has no net namespace"},
		{"a mount from outside", func(s *sample, _ *Grant) {
			s.mounts = append(s.mounts, []any{1, 0, 2, 15, 3, 81, 4, 10, 5, 0, 6, "/", 7, "./host", 18, "/host"})
		}, "mount on /host of the images: it is external"},
		{"the key of another", func(s *sample, _ *Grant) { s.mounts[4][15] = "/proc/kcore" }, "mount on /data of the images: it is external"},
		{"a disk", func(s *sample, _ *Grant) {
			s.mounts = append(s.mounts, []any{1, 16, 2, 15, 3, 81, 4, 10, 5, 0, 6, "/", 7, "./disk", 8, "/dev/vda", 14, "ext4"})
		}, "mount on /disk of the images: its file system (criu's type 16)"},
		{"a part of the root", func(s *sample, _ *Grant) {
			s.mounts = append(s.mounts, []any{1, 0, 2, 15, 3, 77, 4, 10, 5, 0, 6, "/srv/rootfs/a", 7, "./b"})
		}, ""},
		{"two roots", func(s *sample, _ *Grant) {
			s.mounts = append(s.mounts, []any{1, 0, 2, 15, 3, 81, 4, 99, 5, 0, 6, "/", 7, "./"})
		}, "there are two roots"},
		{"a writable root", func(s *sample, _ *Grant) { s.mounts[0][9] = 0 }, "the root is writable"},
		{"writable /proc/sys", func(s *sample, _ *Grant) { s.mounts[2][9] = 0 }, "have /proc/sys writable"},
		{"an open /proc/kcore", func(s *sample, _ *Grant) { s.mounts = append(s.mounts[:3:3], s.mounts[4]) }, "leave /proc/kcore open"},
		{"a path with dots", func(s *sample, _ *Grant) { s.mounts[4][13] = "./a/../data" }, errImage.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, g := newSample(), grant()
			tc.change(s, &g)
			im, err := Read(s.write(t))
			if err != nil {
				t.Fatal(err)
			}
			external, err := im.Check(g)
			switch {
			case tc.words == "" && err != nil:
				t.Error(err)
			case tc.words == "":
				if d := cmp.Diff(map[string]string{"/data": "/srv/data", "/proc/kcore": "/dev/null"}, external); d != "" {
					t.Error(d)
				}
			case err == nil || !strings.Contains(err.Error(), tc.words):
				t.Errorf("%v; want %q", err, tc.words)
			}
		})
	}
}

// TestTwice: two fields where there is one would be read otherwise by criu.
func TestTwice(t *testing.T) {
	s := newSample()
	s.extraInTop = message(5, message(11, 2))
	if _, err := Read(s.write(t)); err == nil {
		t.Error("a second set of credentials was overlooked")
	}
}

// TestDead: of a process that has ended criu keeps one file, and does not set the numbers of its threads.
func TestDead(t *testing.T) {
	const taskAlive, taskZombie = 1, 6
	dir := newSample().write(t)
	put := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("pstree.img", file(message(1, 1, 2, 0, 3, 1, 4, 1, 5, 1), message(1, 7, 2, 1, 3, 1, 4, 1, 5, 1714555072)))
	put("core-7.img", file(message(1, 1, 3, message(1, taskZombie, 2, 0))))
	im, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.Check(grant()); err != nil {
		t.Error(err)
	}
	put("core-7.img", file(message(1, 1, 3, message(1, taskAlive, 2, 0))))
	if _, err := Read(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v; a thread of one that is alive was overlooked", err)
	}
}

// TestGroups: no path of a cgroup leads out of the container's.
func TestGroups(t *testing.T) {
	for _, tc := range []struct {
		name string
		text []byte
		ok   bool
	}{
		{"below", file(message(1, message(1, 1, 2, message(1, "", 2, "/x/y")), 2, message(1, "", 2, message(1, "x", 2, message(1, "y..z"))))), true},
		{"a set leads out", file(message(1, message(1, 1, 2, message(1, "", 2, "/x/../../y")))), false},
		{"a directory leads out", file(message(2, message(1, "", 2, message(1, "x", 2, message(1, ".."))))), false},
		{"no image", []byte("x"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := newSample().write(t)
			if err := os.WriteFile(filepath.Join(dir, "cgroup.img"), tc.text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(dir); (err == nil) != tc.ok {
				t.Error(err)
			}
		})
	}
}

// TestTruncated: every prefix of every file is refused or read, and nothing else happens.
func TestTruncated(t *testing.T) {
	whole := newSample().write(t)
	names, _ := os.ReadDir(whole)
	for _, n := range names {
		text, _ := os.ReadFile(filepath.Join(whole, n.Name()))
		for i := range text {
			if err := os.WriteFile(filepath.Join(whole, n.Name()), text[:i], 0o600); err != nil {
				t.Fatal(err)
			}
			if im, err := Read(whole); err == nil {
				_, _ = im.Check(grant())
			}
		}
		if err := os.WriteFile(filepath.Join(whole, n.Name()), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzRead: images are somebody else's.
func FuzzRead(f *testing.F) {
	s := newSample()
	f.Add(file(message(s.ids...)), uint8(0))
	f.Add(file(message(1, 1, 3, message(1, 1), 5, message(10, message(s.creds...)))), uint8(1))
	f.Add(file(message(s.mounts[3]...)), uint8(2))
	f.Fuzz(func(t *testing.T, text []byte, which uint8) {
		dir := newSample().write(t)
		name := []string{"ids-1.img", "core-1.img", "mountpoints-2.img", "pstree.img", "inventory.img"}[int(which)%5]
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if im, err := Read(dir); err == nil {
			_, _ = im.Check(grant())
		}
	})
}

// TestVersion: without criu that is what is said.
func TestVersion(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Version(); err == nil || !strings.Contains(err.Error(), "criu is not installed") {
		t.Error(err)
	}
}

func TestQuote(t *testing.T) {
	dir := t.TempDir()
	log := "(00.1) fine\n(00.2) Error (criu/x.c:1): it broke\n(00.3) Error (criu/y.c:2): so did this\n"
	if err := os.WriteFile(filepath.Join(dir, "dump.log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("(criu/x.c:1): it broke; (criu/y.c:2): so did this (see %s/dump.log)", dir)
	if d := cmp.Diff(want, Quote(dir, "dump.log")); d != "" {
		t.Error(d)
	}
}
