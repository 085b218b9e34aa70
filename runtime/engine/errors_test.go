package engine

import (
	"syscall"
	"testing"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// TestOpErrorWords: what the kernel's word for it leaves open is said.
func TestOpErrorWords(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  OpError
		want string
	}{
		{"an op", OpError{Index: 17, Kind: plan.MountFS, Summary: "mount proc on /proc", Err: syscall.EPERM}, "op 17 mount proc on /proc: operation not permitted"},
		{"a program by path", OpError{Index: 9, Kind: plan.Exec, Summary: "exec /bin/x", Err: syscall.ENOENT}, "op 9 exec /bin/x: no such file or directory: the program, or the interpreter or loader that it names"},
		{"a program by name", OpError{Index: 9, Kind: plan.Exec, Summary: "exec x", Err: syscall.ENOENT}, "op 9 exec x: executable file not found in $PATH: no such file or directory"},
		{"another architecture", OpError{Index: 9, Kind: plan.Exec, Summary: "exec x", Err: syscall.ENOEXEC}, "op 9 exec x: exec format error: a program for another architecture, or a script without a #! line"},
		{"a directory that is not there", OpError{Index: 8, Kind: plan.Chdir, Summary: "chdir /x", Err: syscall.ENOENT}, "op 8 chdir /x: no such file or directory"},
		{"killed for memory", OpError{Index: 3, Summary: "join", OOM: true, Limit: 1000}, "op 3 join: init was killed: out of memory: the memory limit of 1000 bytes is too small for a start"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.err.Error(); got != tc.want {
				t.Errorf("%q\nwant %q", got, tc.want)
			}
		})
	}
}
