package sandbox

import (
	"strings"
	"testing"
)

func TestHasProfile(t *testing.T) {
	const list = "unconfined (unconfined)\n/usr/bin/man (enforce)\n:ns://a (b) c (complain)\n"
	for _, tt := range []struct {
		name string
		want bool
	}{
		{"/usr/bin/man", true}, {":ns://a (b) c", true}, {"/usr/bin", false}, {"man", false}, {"a", false}, {"", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := hasProfile(strings.NewReader(list), tt.name); got != tt.want || err != nil {
				t.Errorf("hasProfile(%q) = %v, %v", tt.name, got, err)
			}
		})
	}
}
