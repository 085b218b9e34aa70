package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sample returns a journal's bytes with a few records of every kind.
func sample(t testing.TB) []byte {
	t.Helper()
	j := create(t)
	must(t, j.Intend(object("cgroup", "/a", "")))
	must(t, j.Intend(object("mount", "/b", "c1")))
	must(t, j.Note("state", "c1", "running"))
	must(t, j.Release(object("mount", "/b", "c1")))
	must(t, j.Note("state", "c1", nil))
	must(t, j.Intend(object("dir", "/c", "")))
	data, err := os.ReadFile(j.Path())
	must(t, err)
	return data
}

func writeFile(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal")
	must(t, os.WriteFile(path, data, 0o600))
	return path
}

// A write cut at any byte loses that record and no other, and the journal goes
// on.
func TestTornTailAtEveryByte(t *testing.T) {
	whole := sample(t)
	for n := range len(whole) {
		path := writeFile(t, whole[:n])
		complete := bytes.Count(whole[:n], []byte("\n"))
		j, err := Open(path)
		if complete == 0 {
			if !errors.Is(err, ErrEmpty) || !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("cut at %d: %v, want ErrEmpty", n, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		must(t, j.Intend(object("dir", "/new", "")))
		j = reopen(t, j)
		got := j.Live("")
		if got[len(got)-1].Name != "/new" {
			t.Fatalf("cut at %d: live %s", n, names(got))
		}
		if rest, _ := os.ReadFile(path); !bytes.HasPrefix(rest, whole[:bytes.LastIndexByte(whole[:n], '\n')+1]) {
			t.Fatalf("cut at %d: good records changed", n)
		}
		j.Close()
	}
}

func TestCorruptMiddle(t *testing.T) {
	whole := string(sample(t))
	lines := strings.SplitAfter(whole, "\n")
	frameOf := func(body string) string {
		r := &record{Verb: verb(body), Kind: "dir", Name: "/x"}
		line, err := encode(r)
		must(t, err)
		return string(line)
	}
	tests := []struct {
		name string
		data string
		line int
		want string
	}{
		{"flipped byte", strings.Replace(whole, `"/b"`, `"/B"`, 1), 3, "checksum is"},
		{"flipped byte in the last line", strings.Replace(whole, `"/c"`, `"/C"`, 1), 7, "checksum is"},
		{"line lost its start", lines[0] + lines[1][20:] + lines[2], 2, "checksum"},
		{"empty line", lines[0] + "\n" + lines[1], 2, "no checksum"},
		{"zeros", lines[0] + "\x00\x00\x00\n" + lines[1], 2, "no checksum"},
		{"no header", lines[1] + lines[2], 1, "comes first"},
		{"two headers", lines[0] + lines[0], 2, "comes first"},
		{"unknown record", lines[0] + frameOf("explode"), 2, `unknown record "explode"`},
		{"note without data", lines[0] + frameOf("note"), 2, "no data"},
		{"later version", "8d3d0e4c x\n", 1, "checksum is"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, []byte(tt.data))
			_, err := Open(path)
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("error %v, want a CorruptError", err)
			}
			if corrupt.Path != path || corrupt.Line != tt.line || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want line %d and %q", err, tt.line, tt.want)
			}
			if now, _ := os.ReadFile(path); string(now) != tt.data {
				t.Error("Open changed a corrupt journal")
			}
		})
	}
}

func TestVersionOfTheFuture(t *testing.T) {
	line, err := encode(&record{Verb: verbPod, Version: version + 1, Name: "p"})
	must(t, err)
	if _, err := Open(writeFile(t, line)); err == nil || !strings.Contains(err.Error(), "version 2, want 1") {
		t.Errorf("error %v", err)
	}
}

func TestSalvage(t *testing.T) {
	lines := strings.SplitAfter(string(sample(t)), "\n")
	tests := []struct {
		name string
		data string
		want string
	}{
		{"bad header", "x" + strings.Join(lines, ""), "/a /c"},
		{"bad intent", lines[0] + "x" + strings.Join(lines[1:], ""), "/c"},
		{"bad release", strings.Join(lines[:4], "") + "x" + strings.Join(lines[4:], ""), "/a /b /c"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objs, err := Salvage(writeFile(t, []byte(tt.data)))
			if err != nil || names(objs) != tt.want {
				t.Errorf("%q, %v; want %q", names(objs), err, tt.want)
			}
		})
	}
}

// Whatever the bytes, reading ends, keeps its accounts, and what it accepts can
// be written anew and means the same.
func FuzzFold(f *testing.F) {
	whole := sample(f)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(bytes.Replace(whole, []byte("/b"), []byte("/B"), 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		// Most mutations only break a checksum: mend them, to get further.
		data = resum(data)
		st, size, err := fold("journal", data)
		if size < 0 || size > int64(len(data)) {
			t.Fatalf("size %d of %d", size, len(data))
		}
		if err != nil || st.pod == "" {
			return
		}
		if int64(st.live) > size || st.owed < 0 {
			t.Fatalf("live %d, owed %d of %d bytes", st.live, st.owed, size)
		}
		again, err := st.encode()
		if err != nil {
			return // JSON may decode to what encode refuses, such as a huge line
		}
		next, _, err := fold("journal", again)
		if err != nil {
			t.Fatalf("what was accepted cannot be read again: %v", err)
		}
		if d := cmp.Diff(names(st.list("")), names(next.list(""))); d != "" || len(st.notes) != len(next.notes) {
			t.Fatalf("%d and %d notes; %s", len(st.notes), len(next.notes), d)
		}
	})
}

func resum(data []byte) []byte {
	var out []byte
	rest := bytes.Clone(data)
	_ = eachLine(rest, func(_ int, _ int64, line []byte) error {
		if len(line) > frame {
			sum(line)
		}
		out = append(append(out, line...), '\n')
		return nil
	})
	return append(out, rest[bytes.LastIndexByte(rest, '\n')+1:]...)
}
