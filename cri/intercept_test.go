package cri

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-mini/cri-mini/sandbox"
)

// TestWords: a code is not said twice.
func TestWords(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"invalid", fmt.Errorf("port[0]: 0 is not between 1 and 65535: %w", sandbox.ErrInvalid), "port[0]: 0 is not between 1 and 65535"},
		{"not found", fmt.Errorf("container %q: %w", "x", sandbox.ErrNotFound), `container "x": not found`},
		{"gRPC's own", status.Error(codes.Unimplemented, "method X not implemented"), "method X not implemented"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := words(tc.err); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
