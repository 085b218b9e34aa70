package main

import (
	"errors"
	"slices"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, output string
		end          error
		tests        int
		fails        []string
	}{
		{name: "good", output: "TAP version 13\nok 1 - a\nok 2 - b\n1..2\n", tests: 2},
		{name: "two streams", output: "TAP version 13\nok 1 - a\n1..1\nTAP version 13\nok 1 - b\n1..1\n", tests: 2},
		{name: "one fails", output: "ok 1 - a\nnot ok 2 - b\n  {\n    \"x\": \"y\"\n  }\n1..2\n", tests: 2, fails: []string{"b"}},
		{name: "excused by itself", output: "not ok 1 # TODO some day\nok 2 # SKIP not here\n1..2\n", tests: 2},
		{name: "details that look like tests", output: "ok 1 - a\n  {\n  not ok 7 - inner\n  }\n1..1\n", tests: 1},
		{name: "cut short", output: "ok 1 - a\n", tests: 1, fails: []string{"(no plan at the end)"}},
		{name: "cut short after the first stream", output: "ok 1 - a\n1..1\nok 1 - b\n", tests: 2, fails: []string{"(no plan at the end)"}},
		{name: "nothing at all"},
		{name: "head only", output: "TAP version 13\n", fails: []string{"(no plan at the end)"}},
		{name: "other count", output: "ok 1 - a\n1..2\n", tests: 1, fails: []string{"(planned 2 tests, ran 1)"}},
		{name: "error only", output: "  {\n    \"error\": \"it broke\"\n  }\n1..0\n", fails: []string{"(an error without a test)"}},
		{name: "no test and no error", output: "TAP version 13\n1..0\n"},
		{name: "error beside a test", output: "ok 1 - a\n  {\n    \"error\": \"as it should be\"\n  }\n1..1\n", tests: 1},
		{name: "bad end", output: "ok 1 - a\n1..1\n", end: errors.New("killed"), tests: 1, fails: []string{"(killed)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := judge(c.name, c.output, c.end)
			if r.tests != c.tests || !slices.Equal(r.fails, c.fails) {
				t.Errorf("got %d tests, fails %q; want %d, %q", r.tests, r.fails, c.tests, c.fails)
			}
		})
	}
}
