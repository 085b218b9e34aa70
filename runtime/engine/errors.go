package engine

import (
	"errors"
	"fmt"
	"strings"
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
	// OOM is set when it was the kernel that killed init, for memory: the limit is too small for the start.
	OOM bool
	// Limit is that limit in bytes; 0 where it is not known.
	Limit int64
}

func (e *OpError) Error() string {
	switch {
	case e.OOM && e.Limit > 0:
		return fmt.Sprintf("op %d %s: init was killed: out of memory: the memory limit of %d bytes is too small for a start", e.Index, e.Summary, e.Limit)
	case e.OOM:
		return fmt.Sprintf("op %d %s: init was killed: out of memory: the memory limit is too small for a start", e.Index, e.Summary)
	case e.Killed:
		return fmt.Sprintf("op %d %s: init was killed", e.Index, e.Summary)
	case e.lacksProgram(): // runc's words: podman and docker find out by them what is wrong
		return fmt.Sprintf("op %d %s: executable file not found in $PATH: %v", e.Index, e.Summary, e.Err)
	case e.Kind == plan.Exec && e.Errno() == syscall.ENOEXEC:
		return fmt.Sprintf("op %d %s: %v: a program for another architecture, or a script without a #! line", e.Index, e.Summary, e.Err)
	case e.Kind == plan.Exec && e.Errno() == syscall.ENOENT && strings.Contains(e.Summary, "/"):
		return fmt.Sprintf("op %d %s: %v: the program, or the interpreter or loader that it names", e.Index, e.Summary, e.Err)
	}
	return fmt.Sprintf("op %d %s: %v", e.Index, e.Summary, e.Err)
}

// lacksProgram: a name without a slash was looked for.
func (e *OpError) lacksProgram() bool {
	return (e.Kind == plan.Exec || e.Kind == plan.FindProgram) && e.Errno() == syscall.ENOENT && !strings.Contains(e.Summary, "/")
}

// explainHook words the failure of a hook that init ran. Its errno says which kind of failure it was: ECHILD, and
// status is the hook's wait status, or ETIME, or that of its exec.
func (e *OpError) explainHook(status uint32) {
	st := syscall.WaitStatus(status)
	switch errno := e.Errno(); {
	case e.Kind != plan.Hook:
	case errno == syscall.ETIME:
		e.Err = fmt.Errorf("no end within its timeout: %w", errno)
	case errno == syscall.ECHILD && st.Signaled():
		e.Err = fmt.Errorf("killed by signal %d: %w", int(st.Signal()), errHookFailed)
	case errno == syscall.ECHILD:
		e.Err = fmt.Errorf("exit status %d: %w", st.ExitStatus(), errHookFailed)
	}
}

var errHookFailed = errors.New("the hook failed")

// Unwrap gives the errno.
func (e *OpError) Unwrap() error { return e.Err }

// Errno gives the errno of an op, 0 when there is none.
func (e *OpError) Errno() syscall.Errno {
	var errno syscall.Errno
	errors.As(e.Err, &errno)
	return errno
}
