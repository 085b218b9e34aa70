package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const example = "# head\n\nhooks\n    fails a\n    fails b\n    spec  runtime.md:2 `second line` because it is so\n\nmounts\n    fails c\n    here  no such device\n"

func TestParseExpected(t *testing.T) {
	list, err := parseExpected(example)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].program != "hooks" || !slices.Equal(list[0].fails, []string{"a", "b"}) ||
		list[0].spec[0] != (reference{"runtime.md", 2, "second line"}) || !list[1].reason {
		t.Errorf("got %+v", list)
	}
	for _, c := range []struct{ name, text, want string }{
		{"no program", "    fails a\n", "no program"},
		{"unknown word", "p\n    fails a\n    because so\n", "none of"},
		{"no reason", "p\n    fails a\n", "needs what fails"},
		{"nothing fails", "p\n    here so\n", "needs what fails"},
		{"no such form", "p\n    fails a\n    spec runtime.md\n", "want spec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseExpected(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestCheckReferences(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "runtime.md"), []byte("first line\nthe second line\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	list, err := parseExpected(example)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkReferences(list, dir); err != nil {
		t.Error(err)
	}
	for _, ref := range []reference{{"runtime.md", 1, "second"}, {"runtime.md", 9, "second"}, {"config.md", 2, "second"}, {"runtime.md", 0, "second"}} {
		list[0].spec[0] = ref
		if checkReferences(list, dir) == nil {
			t.Errorf("%s %q was found", ref, ref.words)
		}
	}
}

func TestCompare(t *testing.T) {
	e := excuse{fails: []string{"a", "b"}, may: []string{"m"}}
	for _, c := range []struct {
		name        string
		fails, want []string
	}{
		{"as expected", []string{"a", "b", "a"}, nil},
		{"with what may fail", []string{"a", "b", "m"}, nil},
		{"one more", []string{"a", "b", "c", "c"}, []string{"fails: c"}},
		{"one less", []string{"a"}, []string{"is in expected.txt and passes: b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := compare(result{fails: c.fails}, e); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
