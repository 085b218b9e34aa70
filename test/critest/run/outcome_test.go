package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/onsi/ginkgo/v2/types"
)

func spec(name string, state types.SpecState, message string) types.SpecReport {
	return types.SpecReport{
		ContainerHierarchyTexts: []string{"[k8s.io] Pod"}, LeafNodeText: name, LeafNodeType: types.NodeTypeIt, State: state,
		Failure: types.Failure{Message: message, Location: types.CodeLocation{FileName: "/x/pod.go", LineNumber: 7}},
	}
}

func TestReadOutcomes(t *testing.T) {
	machineReasons[0].here = func() bool { return true }
	for _, row := range []struct {
		name string
		spec types.SpecReport
		want verdict
		why  string
	}{
		{"pass", spec("a", types.SpecStatePassed, ""), passed, ""},
		{"fail", spec("a", types.SpecStateFailed, "no"), failed, "failed: no\npod.go:7"},
		{"panic", spec("a", types.SpecStatePanicked, "no"), failed, "panicked: no\npod.go:7"},
		{"timeout", spec("a", types.SpecStateTimedout, "no"), failed, "timedout: no\npod.go:7"},
		{"machine", spec("a", types.SpecStateSkipped, "AppArmor is disabled on this host"), skipped, "no AppArmor on this machine"},
		{"runtime lacks it", spec("a", types.SpecStateSkipped, "no handler"), failed, "skipped itself: no handler"},
		{"benchmark", spec("a benchmark", types.SpecStateSkipped, ""), skipped, benchmarkReason},
		{"filtered", spec("a", types.SpecStateSkipped, ""), left, ""},
	} {
		got := readOutcomes([]types.Report{{SpecReports: types.SpecReports{row.spec}}})
		if len(got) != 1 || got[0].verdict != row.want || got[0].why != row.why {
			t.Errorf("%s: %+v, want %q %q", row.name, got, row.want, row.why)
		}
	}
}

// TestTrapSkipIsAFailure: a spec that skips itself counts as failed, unless the machine truly cannot run it.
func TestTrapSkipIsAFailure(t *testing.T) {
	for _, row := range []struct {
		name, says string
		here       bool
		want       verdict
	}{
		{"for AppArmor, and there is none", "AppArmor is disabled on this host", true, skipped},
		{"for AppArmor, and there is", "AppArmor is disabled on this host", false, failed},
		{"for what the runtime says it lacks", "no user namespaces", true, failed},
	} {
		machineReasons[0].here = func() bool { return row.here }
		got := readOutcomes([]types.Report{{SpecReports: types.SpecReports{spec("a", types.SpecStateSkipped, row.says)}}})
		if got[0].verdict != row.want {
			t.Errorf("%s: %+v", row.name, got)
		}
	}
}

func TestCompare(t *testing.T) {
	all := []outcome{
		{name: "good", verdict: passed}, {name: "mended", verdict: passed}, {name: "broken", verdict: failed},
		{name: "known", verdict: failed}, {name: "cannot", verdict: skipped}, {name: "unasked", verdict: left},
	}
	expected := map[string]bool{"mended": true, "known": true, "cannot": true, "unasked": true, "gone": true}
	want := []string{
		"broke: broken",
		"listed as an expected failure, but cannot run here: cannot",
		"listed as an expected failure, but no such spec: gone",
		"passes now, take it off the list of expected failures: mended",
	}
	if diff := cmp.Diff(want, compare(expected, all)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestExpectedFileRoundTrip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "expected.txt")
	if err := writeExpected(file, []outcome{{name: "a # b", verdict: failed}, {name: "c", verdict: passed}}); err != nil {
		t.Fatal(err)
	}
	got, err := readExpected(file)
	if diff := cmp.Diff(map[string]bool{"a # b": true}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestPrintNamesTheWayToRunAgain(t *testing.T) {
	var out bytes.Buffer
	count := printOutcomes(&out, []outcome{{name: "it's (a) spec", verdict: failed, took: time.Second, why: "one\ntwo"}}, "go run ./run")
	if count[failed] != 1 || !strings.Contains(out.String(), `--focus 'it.s \(a\) spec'`) || !strings.Contains(out.String(), "| two\n") {
		t.Errorf("%v\n%s", count, out.String())
	}
}

func TestBrief(t *testing.T) {
	got := brief("failed: x\n    rpc error: y\n    {\n        s: {\n        },\n    }\noccurred\n")
	if want := "failed: x\n    rpc error: y\noccurred"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFillKnowsEveryPlaceholder(t *testing.T) {
	j := job{RunDir: "/run/x", Scratch: "/var/x"}
	if text := j.fill(defaultConfig + "{config}"); strings.ContainsAny(text, "{}") {
		t.Errorf("left unfilled:\n%s", text)
	}
}

func TestSweepKeepsLiveRuns(t *testing.T) {
	parent := t.TempDir()
	live := filepath.Join(parent, "1")
	for _, dir := range []string{live, filepath.Join(parent, "4194305")} { // above the largest PID
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(parent)
	if got, _ := filepath.Glob(filepath.Join(parent, "*")); !cmp.Equal(got, []string{live}) {
		t.Errorf("left: %v", got)
	}
}
