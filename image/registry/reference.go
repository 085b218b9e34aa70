package registry

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Parse normalises a reference as users write it: "busybox" is "docker.io/library/busybox:latest". With both a tag and
// a digest the digest decides and the tag is dropped, as Docker and containerd do. It returns ErrInvalidReference.
func Parse(ref string) (reference.Named, error) {
	if _, err := digest.Parse(ref); err == nil { // it would be the tag of docker.io/library/sha256
		return nil, fmt.Errorf("%w: %q is an image id, not a name", ErrInvalidReference, ref)
	}
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrInvalidReference, ref, err)
	}
	return named, nil
}
