package main

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

var (
	testLine = regexp.MustCompile(`^(not )?ok\b *\d* *(?:- )?(.*)$`)
	planLine = regexp.MustCompile(`^1\.\.(\d+)`)
)

// judge reads what a program printed (TAP, testanything.org), and how it ended.
// Lines that are indented are details of the test before. What is no test of the
// program's own, and yet a failure, gets words in parentheses:
//
//   - an exit status other than 0;
//   - output, if there is some, that ends without a plan ("1..N"), or with one of another count: the
//     program, or what it ran in the container, did not come to its end;
//   - details without a test: some programs have nothing but an error to print.
func judge(name, output string, end error) result {
	r := result{name: name}
	count, planned, loose := 0, -1, false
	if output == "" {
		planned = 0 // a program whose verdict is its exit status
	}
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if m := testLine.FindStringSubmatch(line); m != nil {
			r.tests++
			count++
			planned = -1
			excused := strings.Contains(m[2], "# TODO") || strings.Contains(m[2], "# SKIP")
			if m[1] != "" && !excused {
				r.fails = append(r.fails, m[2])
			}
			continue
		}
		if m := planLine.FindStringSubmatch(line); m != nil {
			planned, _ = strconv.Atoi(m[1])
			if planned != count {
				r.fails = append(r.fails, fmt.Sprintf("(planned %d tests, ran %d)", planned, count))
			}
			count = 0
			continue
		}
		loose = loose || r.tests == 0 && strings.HasPrefix(strings.TrimSpace(line), `"error":`)
	}
	if loose {
		r.fails = append(r.fails, "(an error without a test)")
	}
	if planned < 0 {
		r.fails = append(r.fails, "(no plan at the end)")
	}
	var exit *exec.ExitError
	switch {
	case errors.As(end, &exit):
		r.fails = append(r.fails, fmt.Sprintf("(%s)", exit))
	case end != nil:
		r.fails = append(r.fails, fmt.Sprintf("(%v)", end))
	}
	return r
}
