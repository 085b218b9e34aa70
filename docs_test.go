package arch_test

import (
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// leaves gives the fields of config.json that concern Linux, as docs/oci.md writes them: their names in JSON with dots.
func leaves(t reflect.Type, name string, list []string) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return leaves(t.Elem(), name, list)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if platform := f.Tag.Get("platform"); platform != "" && !strings.Contains(platform, "linux") {
				continue
			}
			sub, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous:
				sub = name
			case name != "":
				sub = name + "." + sub
			}
			list = leaves(f.Type, sub, list)
		}
		return list
	}
	return append(list, name)
}

var code = regexp.MustCompile("`([^`]+)`")

// words gives what is written as code in a cell of a table.
func words(cell string) (list []string) {
	for _, m := range code.FindAllStringSubmatch(cell, -1) {
		list = append(list, m[1])
	}
	return list
}

// rows gives the cells of the lines of a page's tables that begin with code.
func rows(t *testing.T, file string) (list [][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `") {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
			list = append(list, cells)
		}
	}
	return list
}

// tests are the names of all tests of the module.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(".", func(file string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			found[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOCIFields: docs/oci.md has each field of the specification once, and the operations and tests that it names exist, those
// of the attacks too.
func TestOCIFields(t *testing.T) {
	fields := leaves(reflect.TypeFor[specs.Spec](), "", nil)
	if len(fields) < 100 {
		t.Fatalf("only %d fields: %q", len(fields), fields)
	}
	ops, err := os.ReadFile("docs/ops.md")
	if err != nil {
		t.Fatal(err)
	}
	known, times := tests(t), map[string]int{}
	for _, row := range rows(t, "docs/oci.md") {
		if len(row) < 3 || len(words(row[2])) == 0 {
			t.Errorf("row %q names no test", row[0])
			continue
		}
		for _, name := range words(row[2]) {
			if !known[name] {
				t.Errorf("row %q: there is no test %s", row[0], name)
			}
		}
		if len(row) == 3 {
			continue // an attack
		}
		for _, pattern := range words(row[0]) {
			hits := 0
			for _, f := range fields {
				if ok, _ := path.Match(strings.ReplaceAll(pattern, ".", "/"), strings.ReplaceAll(f, ".", "/")); ok {
					times[f]++
					hits++
				}
			}
			if hits == 0 {
				t.Errorf("%s is no field of the specification", pattern)
			}
		}
		for _, op := range words(row[1]) {
			if !strings.Contains(string(ops), "\n## "+op+"\n") {
				t.Errorf("row %q: there is no operation %s", row[0], op)
			}
		}
	}
	for _, f := range fields {
		if times[f] != 1 {
			t.Errorf("docs/oci.md has the field %s %d times", f, times[f])
		}
	}
}
