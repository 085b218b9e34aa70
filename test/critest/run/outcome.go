package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

type verdict string

const (
	passed  verdict = "passed"
	failed  verdict = "failed"
	skipped verdict = "skipped" // this machine cannot run it
	left    verdict = ""        // not asked for: a filter left it out
)

// outcome is what became of one spec.
type outcome struct {
	name    string
	verdict verdict
	took    time.Duration
	why     string // the failure, or the reason of the skip
}

// machineReasons are the only skips that do not count as failures: a spec
// that skips itself because of the machine, and the benchmarks, which critest
// itself leaves out unless it is asked for nothing else. Every other skip is
// a feature that the runtime says it lacks.
var machineReasons = []struct {
	message *regexp.Regexp
	reason  string
	here    func() bool // whether the machine really is like that
}{
	{regexp.MustCompile(`^AppArmor is disabled on this host$`), "no AppArmor on this machine", func() bool {
		on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
		return err != nil || !strings.HasPrefix(string(on), "Y")
	}},
}

const benchmarkReason = "a benchmark, not part of the validation"

// readOutcomes turns ginkgo's report into ours, sorted by name.
func readOutcomes(reports []types.Report) []outcome {
	var all []outcome
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			switch {
			case spec.LeafNodeType == types.NodeTypeIt:
				all = append(all, judge(spec))
			case spec.Failed(): // BeforeSuite and the like
				all = append(all, outcome{name: spec.LeafNodeType.String(), verdict: failed, why: failureText(spec)})
			}
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].name < all[j].name })
	return all
}

func judge(spec types.SpecReport) outcome {
	o := outcome{name: strings.TrimPrefix(spec.FullText(), "[k8s.io] "), took: spec.RunTime, verdict: failed}
	switch spec.State {
	case types.SpecStatePassed:
		o.verdict = passed
	case types.SpecStateSkipped, types.SpecStatePending:
		judgeSkip(&o, spec)
	default:
		o.why = failureText(spec)
	}
	return o
}

func judgeSkip(o *outcome, spec types.SpecReport) {
	message := spec.Failure.Message
	if message == "" { // filtered out, not skipped by itself
		o.verdict = left
		if strings.Contains(o.name, "benchmark") {
			o.verdict, o.why = skipped, benchmarkReason
		}
		return
	}
	for _, m := range machineReasons {
		if m.message.MatchString(message) && m.here() {
			o.verdict, o.why = skipped, m.reason
			return
		}
	}
	o.why = "skipped itself: " + message
}

func failureText(spec types.SpecReport) string {
	f := spec.Failure
	return fmt.Sprintf("%s: %s\n%s:%d", spec.State, brief(f.Message), filepath.Base(f.Location.FileName), f.Location.LineNumber)
}

// brief leaves out gomega's dump of an error's fields, which begins and ends
// with a brace on a line of its own: the words of the error come before it.
func brief(message string) string {
	var kept []string
	end := ""
	for line := range strings.SplitSeq(strings.TrimSpace(message), "\n") {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		switch {
		case end != "":
			if line == end {
				end = ""
			}
		case line == indent+"{":
			end = indent + "}"
		default:
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// printOutcomes prints a line for each spec, the failures with their reason
// and the command that runs them again.
func printOutcomes(w io.Writer, all []outcome, again string) map[verdict]int {
	count := map[verdict]int{}
	for _, o := range all {
		count[o.verdict]++
		switch o.verdict {
		case passed:
			fmt.Fprintf(w, "passed  %6.2fs  %s\n", o.took.Seconds(), o.name)
		case skipped:
			fmt.Fprintf(w, "skipped          %s (%s)\n", o.name, o.why)
		case failed:
			fmt.Fprintf(w, "FAILED  %6.2fs  %s\n", o.took.Seconds(), o.name)
			for line := range strings.SplitSeq(clip(o.why, 1200), "\n") {
				fmt.Fprintf(w, "        | %s\n", line)
			}
			fmt.Fprintf(w, "        again: %s --focus '%s'\n", again, strings.ReplaceAll(regexp.QuoteMeta(o.name), "'", "."))
		}
	}
	return count
}

// conclude prints everything and compares with the expected failures.
func conclude(j job, all []outcome, wall time.Duration) error {
	count := printOutcomes(os.Stdout, all, j.Again)
	fmt.Printf("\nThe digest that critest pulls test-image-digest by was replaced by that of our own image; all else is %s as released.\n", criTools)
	fmt.Printf("logs and reports: %s; wall time %v\n", j.Report, wall.Round(100*time.Millisecond))
	fmt.Printf("critest: %d passed, %d failed, %d skipped\n", count[passed], count[failed], count[skipped])
	if count[passed]+count[failed] == 0 {
		fmt.Println("FAIL: no spec was run")
		return exitCode(1)
	}
	if j.Update {
		return writeExpected(j.Expected, all)
	}
	expected, err := readExpected(j.Expected)
	if err != nil {
		return err
	}
	wrong := compare(expected, all)
	for _, line := range wrong {
		fmt.Println("FAIL:", line)
	}
	if len(wrong) > 0 {
		return exitCode(1)
	}
	return nil
}

// compare says where a run differs from the expected failures. Names that a
// filter left out are not compared.
func compare(expected map[string]bool, all []outcome) []string {
	var wrong []string
	known := map[string]bool{}
	for _, o := range all {
		known[o.name] = true
		switch {
		case o.verdict == failed && !expected[o.name]:
			wrong = append(wrong, "broke: "+o.name)
		case o.verdict == passed && expected[o.name]:
			wrong = append(wrong, "passes now, take it off the list of expected failures: "+o.name)
		case o.verdict == skipped && expected[o.name]:
			wrong = append(wrong, "listed as an expected failure, but cannot run here: "+o.name)
		}
	}
	for name := range expected {
		if !known[name] {
			wrong = append(wrong, "listed as an expected failure, but no such spec: "+name)
		}
	}
	sort.Strings(wrong)
	return wrong
}

// readExpected reads one name a line; # begins a comment line.
func readExpected(file string) (map[string]bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read expected failures: %w", err)
	}
	defer f.Close()
	names := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" && !strings.HasPrefix(name, "#") {
			names[name] = true
		}
	}
	return names, lines.Err()
}

const expectedHead = `# Specs of critest that fail, one name a line. The harness fails when a spec
# that is not here fails, and when one that is here passes.
# Write it anew: go run ./run --update
`

func writeExpected(file string, all []outcome) error {
	text := expectedHead
	for _, o := range all {
		if o.verdict == failed {
			text += o.name + "\n"
		}
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[:limit] + " …"
}
