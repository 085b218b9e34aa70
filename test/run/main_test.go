package main

import (
	"bytes"
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"github.com/cri-mini/cri-mini/netns"}
{"Action":"output","Package":"github.com/cri-mini/cri-mini/netns","Test":"TestA","Output":"    a_test.go:7: needs root: it makes links\n"}
{"Action":"skip","Package":"github.com/cri-mini/cri-mini/netns","Test":"TestA","Elapsed":0}
{"Action":"output","Package":"github.com/cri-mini/cri-mini/netns","Test":"TestB/one_row","Output":"    a_test.go:9: got 1\n"}
{"Action":"fail","Package":"github.com/cri-mini/cri-mini/netns","Test":"TestB/one_row","Elapsed":0}
{"Action":"fail","Package":"github.com/cri-mini/cri-mini/netns","Test":"TestB","Elapsed":0}
{"Action":"pass","Package":"github.com/cri-mini/cri-mini/netns","Test":"TestC","Elapsed":0}
{"Action":"fail","Package":"github.com/cri-mini/cri-mini/netns","Elapsed":0.25}
{"Action":"pass","Package":"github.com/cri-mini/cri-mini/oci","Elapsed":1.5}
{"ImportPath":"github.com/cri-mini/cri-mini/cri [github.com/cri-mini/cri-mini/cri.test]","Action":"build-output","Output":"cri/x.go:1: undefined: y\n"}
{"Action":"output","Package":"github.com/cri-mini/cri-mini/cri","Output":"FAIL [build failed]\n"}
{"Action":"fail","Package":"github.com/cri-mini/cri-mini/cri","Elapsed":0}
no JSON
`

func TestSummary(t *testing.T) {
	var b bytes.Buffer
	s := newSummary(&b, againByGo(true))
	s.read(strings.NewReader(events))
	s.end()
	for _, want := range []string{
		"FAIL  netns (0.2 s)\n", "a_test.go:9: got 1\n", "ok    oci (1.5 s)\n", "undefined: y\n", "no JSON\n",
		"skipped 1 tests:\n    1  needs root: it makes links (netns.TestA)\n",
		"  sudo env PATH=$PATH go test -count=1 -run '^TestB$/^one_row$' ./netns\n",
		"  sudo env PATH=$PATH go test -count=1 ./cri\n",
		"1 passed, 2 failed, 1 skipped\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &b)
		}
	}
	if strings.Contains(b.String(), "'^TestB$' ") {
		t.Errorf("a test that failed for its subtest is run again:\n%s", &b)
	}
}

// A test that hangs is ended by a panic of its program, and what comes then may get lost with the machine.
func TestPackageWithoutEnd(t *testing.T) {
	var b bytes.Buffer
	s := newSummary(&b, againByGo(false))
	s.read(strings.NewReader(`{"Action":"output","Package":"p/netns","Test":"TestA","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"p/netns","Test":"TestA","Elapsed":90}
`))
	s.end()
	if !strings.Contains(b.String(), "FAIL  p/netns") || !strings.Contains(b.String(), "timed out") {
		t.Errorf("the reason is missing in\n%s", &b)
	}
}

func TestAgainElsewhere(t *testing.T) {
	s := newSummary(&bytes.Buffer{}, "sudo test/node/check --kernel 6.1")
	if got, want := s.command(testID{"github.com/cri-mini/cri-mini/netns", "TestB/one"}), "sudo test/node/check --kernel 6.1 -run '^TestB$/^one$' ./netns"; got != want {
		t.Errorf("run again by %q, want %q", got, want)
	}
}
