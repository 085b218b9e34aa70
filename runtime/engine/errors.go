package engine

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// ErrGone is the error of an operation on a process that has ended.
var ErrGone = errors.New("the process has ended")

// OpError is a start that failed: the op, the object it was at, and the errno. It reads
// "op 17 mount proc on /proc: operation not permitted".
type OpError struct {
	Index   int
	Kind    plan.Kind
	Summary string
	Err     error // a syscall.Errno where the kernel gave one
	// Killed is set when init ended at the op without an errno: something killed it.
	Killed bool
}

func (e *OpError) Error() string {
	if e.Killed {
		return fmt.Sprintf("op %d %s: init was killed", e.Index, e.Summary)
	}
	return fmt.Sprintf("op %d %s: %v", e.Index, e.Summary, e.Err)
}

// Unwrap gives the errno.
func (e *OpError) Unwrap() error { return e.Err }

// Errno gives the errno of an op, 0 when there is none.
func (e *OpError) Errno() syscall.Errno {
	var errno syscall.Errno
	errors.As(e.Err, &errno)
	return errno
}
