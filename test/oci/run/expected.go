package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// excuse is one entry of expected.txt: a program, the tests of it that fail, and
// why that is not the runtime's fault.
type excuse struct {
	program string
	fails   []string
	may     []string    // fail or pass
	spec    []reference // lines of the specification that the program contradicts
	reason  bool        // or there is another reason, in words
}

// reference is a line of the specification, and a part of it.
type reference struct {
	file  string
	line  int
	words string
}

func (r reference) String() string { return fmt.Sprintf("%s:%d", r.file, r.line) }

var referenceForm = regexp.MustCompile("^([a-z-]+\\.md):([0-9]+) `([^`]+)`")

// parseExpected reads the form of expected.txt, which its head describes.
func parseExpected(text string) ([]excuse, error) {
	var list []excuse
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		if trimmed == line {
			list = append(list, excuse{program: line})
			continue
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("line %d: %q belongs to no program", i+1, trimmed)
		}
		e := &list[len(list)-1]
		key, value, _ := strings.Cut(trimmed, " ")
		value = strings.TrimSpace(value)
		switch key {
		case "fails":
			e.fails = append(e.fails, value)
		case "may":
			e.may = append(e.may, value)
		case "spec":
			m := referenceForm.FindStringSubmatch(value)
			if m == nil {
				return nil, fmt.Errorf("line %d: want spec FILE.md:LINE `words of it`", i+1)
			}
			n, _ := strconv.Atoi(m[2])
			e.spec = append(e.spec, reference{m[1], n, m[3]})
		case "here", "other":
			e.reason = true
		default:
			return nil, fmt.Errorf("line %d: %q is none of fails, may, spec, here, other", i+1, key)
		}
	}
	for _, e := range list {
		if len(e.fails)+len(e.may) == 0 || len(e.spec) == 0 && !e.reason {
			return nil, fmt.Errorf("%s: needs what fails, and a line of the specification or another reason", e.program)
		}
	}
	return list, nil
}

// checkReferences looks each line up in the text of the specification.
func checkReferences(list []excuse, dir string) error {
	for _, e := range list {
		for _, ref := range e.spec {
			text, err := os.ReadFile(filepath.Join(dir, ref.file))
			if err != nil {
				return fmt.Errorf("%s: %w", e.program, err)
			}
			lines := strings.Split(string(text), "\n")
			if ref.line > len(lines) || !strings.Contains(lines[max(ref.line, 1)-1], ref.words) {
				return fmt.Errorf("%s: line %s of the specification does not say %q", e.program, ref, ref.words)
			}
		}
	}
	return nil
}

func find(list []excuse, program string) excuse {
	for _, e := range list {
		if e.program == program {
			return e
		}
	}
	return excuse{}
}

// compare says what a program did otherwise than expected.
func compare(r result, e excuse) []string {
	var complaints []string
	for _, f := range r.fails {
		if !slices.Contains(e.fails, f) && !slices.Contains(e.may, f) && !slices.Contains(complaints, "fails: "+f) {
			complaints = append(complaints, "fails: "+f)
		}
	}
	for _, f := range e.fails {
		if !slices.Contains(r.fails, f) {
			complaints = append(complaints, "is in expected.txt and passes: "+f)
		}
	}
	return complaints
}
