package oci

import "fmt"

// InvalidError is a request that cannot be fulfilled as it is written. It
// names the field in CRI's words, so that whoever reads the message knows what
// to change; cri answers it with InvalidArgument.
type InvalidError struct {
	Config string // which message: "pod config", "container config", "image config", "exec"
	Field  string // path of the field in it: "mounts[2].host_path"
	Why    string // what is wrong and what would be right
}

func (e *InvalidError) Error() string { return e.Config + ": " + e.Field + ": " + e.Why }

// Names of the messages that an InvalidError can be about.
const (
	podConfig       = "pod config"
	containerConfig = "container config"
	imageConfig     = "image config"
	execConfig      = "exec"
)

func badPod(field, why string, args ...any) error {
	return &InvalidError{podConfig, field, fmt.Sprintf(why, args...)}
}

func badContainer(field, why string, args ...any) error {
	return &InvalidError{containerConfig, field, fmt.Sprintf(why, args...)}
}

func badImage(field, why string, args ...any) error {
	return &InvalidError{imageConfig, field, fmt.Sprintf(why, args...)}
}
