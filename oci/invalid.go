package oci

import (
	"fmt"

	crierrors "k8s.io/cri-api/pkg/errors"
)

// InvalidError is a request that cannot be fulfilled as it is written. It
// names the field in CRI's words, so that whoever reads the message knows what
// to change; cri answers it with InvalidArgument.
type InvalidError struct {
	Config string // which message: "pod config", "container config", "image config", "exec"
	Field  string // path of the field in it: "mounts[2].host_path"
	Why    string // what is wrong and what would be right
	// Name is what the API calls this failure (k8s.io/cri-api/pkg/errors), for
	// the kubelet to find in the message; "" where it has no name for it.
	Name string
}

func (e *InvalidError) Error() string {
	s := e.Config + ": " + e.Field + ": " + e.Why
	if e.Name != "" {
		s = e.Name + ": " + s
	}
	return s
}

// Names of the messages that an InvalidError can be about.
const (
	podConfig       = "pod config"
	containerConfig = "container config"
	imageConfig     = "image config"
	execConfig      = "exec"
)

func badPod(field, why string, args ...any) error {
	return &InvalidError{Config: podConfig, Field: field, Why: fmt.Sprintf(why, args...)}
}

func badContainer(field, why string, args ...any) error {
	return &InvalidError{Config: containerConfig, Field: field, Why: fmt.Sprintf(why, args...)}
}

// badVolume is badContainer for a mount with an image.
func badVolume(field, why string, args ...any) error {
	return &InvalidError{Config: containerConfig, Field: field, Why: fmt.Sprintf(why, args...), Name: crierrors.ErrImageVolumeMountFailed.Error()}
}

func badImage(field, why string, args ...any) error {
	return &InvalidError{Config: imageConfig, Field: field, Why: fmt.Sprintf(why, args...)}
}
