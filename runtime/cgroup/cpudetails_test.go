package cgroup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRanges(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []uint16
	}{
		{"none", "", nil},
		{"one", "3", []uint16{3}},
		{"list", "0-2,5", []uint16{0, 1, 2, 5}},
		{"no list", "a,1-,-1,70000", nil},
		{"the wrong way round", "2-1", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, parseRanges(tc.text)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseUsageAll(t *testing.T) {
	user, kernel := parseUsageAll("cpu user system\n0 5 1\n1 7 0\n")
	if d := cmp.Diff([][]uint64{{5, 7}, {1, 0}}, [][]uint64{user, kernel}); d != "" {
		t.Error(d)
	}
}
