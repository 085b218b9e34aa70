// Command run is go test with an end that can be read: a line a package, the
// whole output of what failed, the one command that runs each failure again, and
// a count of the skips with their reasons, for a skip looks like a pass.
//
//	run [go test flags] [packages]
//	run -events AGAIN
//
// With -events somebody else runs the tests and the events of go test -json come on
// standard input; AGAIN is the command that runs some of them again, when -run and a
// package are put behind it.
//
// It imports nothing of this module.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
	// ImportPath names what was built where Action is build-output.
	ImportPath string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "-events" {
		s := newSummary(os.Stdout, os.Args[2])
		s.read(os.Stdin)
		s.end()
		if len(s.failed) > 0 {
			os.Exit(1)
		}
		return
	}
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run: start go test:", err)
		os.Exit(2)
	}
	s := newSummary(os.Stdout, againByGo(os.Getuid() == 0))
	s.read(out)
	err = cmd.Wait()
	s.end()
	if err != nil {
		os.Exit(1)
	}
}

type testID struct{ pkg, test string }

// summary folds events.
type summary struct {
	w      io.Writer
	again  string // the command that runs tests again
	output map[testID][]string
	failed []testID
	skips  map[string][]testID // by reason
	count  map[string]int      // by action
	ended  map[string]bool     // by package
}

func newSummary(w io.Writer, again string) *summary {
	return &summary{w: w, again: again, output: map[testID][]string{}, skips: map[string][]testID{}, count: map[string]int{}, ended: map[string]bool{}}
}

func (s *summary) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		switch {
		case len(line) == 0:
		case json.Unmarshal(line, &e) != nil:
			fmt.Fprintf(s.w, "%s", line) // of the go command itself
		default:
			s.add(e)
		}
		if err != nil {
			return
		}
	}
}

func (s *summary) add(e event) {
	id := testID{cmp.Or(e.Package, e.ImportPath), e.Test}
	switch e.Action {
	case "output", "build-output":
		s.output[id] = append(s.output[id], e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		s.endPackage(e)
		return
	}
	s.count[e.Action]++
	switch e.Action {
	case "fail":
		s.failed = append(s.failed, id)
	case "skip":
		reason := reasonOf(s.output[id])
		s.skips[reason] = append(s.skips[reason], id)
	}
	if e.Action != "fail" {
		delete(s.output, id)
	}
}

func (s *summary) endPackage(e event) {
	name := short(e.Package)
	s.ended[e.Package] = true
	switch e.Action {
	case "pass":
		fmt.Fprintf(s.w, "ok    %s (%.1f s)\n", name, e.Elapsed)
	case "fail":
		fmt.Fprintf(s.w, "FAIL  %s (%.1f s)\n", name, e.Elapsed)
		s.printFailures(e.Package)
	}
	// A skipped package has no tests.
	delete(s.output, testID{e.Package, ""})
}

// printFailures prints what the package's failed tests said, in their order, then
// what belongs to no test: a panic, a build error.
func (s *summary) printFailures(pkg string) {
	own := false
	for _, id := range s.failed {
		if id.pkg == pkg {
			own = true
			fmt.Fprint(s.w, indent(s.output[id]))
		}
	}
	if !own {
		s.failed = append(s.failed, testID{pkg, ""})
		for id, out := range s.output {
			if id.pkg == pkg || strings.HasPrefix(id.pkg, pkg+" [") {
				fmt.Fprint(s.w, indent(out))
			}
		}
	}
}

func indent(lines []string) string {
	text := strings.TrimRight(strings.Join(lines, ""), "\n")
	return "      " + strings.ReplaceAll(text, "\n", "\n      ") + "\n"
}

// reasonOf returns what t.Skip was given: the line after the file and number.
func reasonOf(output []string) string {
	for _, line := range output {
		if _, reason, ok := strings.Cut(strings.TrimSpace(line), ".go:"); ok {
			_, reason, _ = strings.Cut(reason, ": ")
			return reason
		}
	}
	return "no reason given"
}

// end prints the skips and how to run each failure again.
func (s *summary) end() {
	for _, id := range slices.Clone(s.failed) {
		if id.test != "" && !s.ended[id.pkg] { // whoever ran it was killed
			s.endPackage(event{Action: "fail", Package: id.pkg})
		}
	}
	if len(s.skips) > 0 {
		fmt.Fprintf(s.w, "\nskipped %d tests:\n", s.count["skip"])
		for _, reason := range slices.Sorted(maps.Keys(s.skips)) {
			ids := s.skips[reason]
			fmt.Fprintf(s.w, "  %3d  %s (%s)\n", len(ids), reason, places(ids))
		}
	}
	again := s.leaves()
	if len(again) > 0 {
		fmt.Fprintf(s.w, "\nrun again what failed:\n")
		for _, id := range again {
			fmt.Fprintf(s.w, "  %s\n", s.command(id))
		}
	}
	if len(s.count) == 0 {
		return // the whole run was something else's
	}
	fmt.Fprintf(s.w, "\n%d passed, %d failed, %d skipped\n", s.count["pass"], s.count["fail"], s.count["skip"])
}

// leaves are the failed tests without those that failed only for a subtest.
func (s *summary) leaves() []testID {
	var out []testID
	for _, id := range s.failed {
		parent := slices.ContainsFunc(s.failed, func(o testID) bool {
			return o.pkg == id.pkg && strings.HasPrefix(o.test, id.test+"/")
		})
		if !parent || id.test == "" {
			out = append(out, id)
		}
	}
	return out
}

func againByGo(root bool) string {
	if root {
		return "sudo env PATH=$PATH go test -count=1"
	}
	return "go test -count=1"
}

func (s *summary) command(id testID) string {
	run := ""
	if id.test != "" {
		run = " -run '^" + strings.ReplaceAll(id.test, "/", "$/^") + "$'"
	}
	return s.again + run + " ./" + short(id.pkg)
}

func places(ids []testID) string {
	var names []string
	for _, id := range ids {
		names = append(names, filepath.Base(id.pkg)+"."+id.test)
	}
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

func short(pkg string) string {
	if rest, ok := strings.CutPrefix(pkg, "github.com/cri-mini/cri-mini/"); ok {
		return rest
	}
	return strings.TrimPrefix(pkg, "github.com/cri-mini/cri-mini")
}
