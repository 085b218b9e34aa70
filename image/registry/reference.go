package registry

import (
	"fmt"

	"github.com/distribution/reference"
)

// Parse normalises a reference as users write it: "busybox" is "docker.io/library/busybox:latest". With both a tag and
// a digest the digest decides and the tag is dropped, as Docker and containerd do. It returns ErrInvalidReference.
func Parse(ref string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrInvalidReference, ref, err)
	}
	return named, nil
}
