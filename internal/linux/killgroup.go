package linux

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// KillGroup sends SIGKILL to every process in the cgroup directory, none below it: by cgroup.kill where there is one
// (cgroup v2, Linux 5.14), else one by one, again for those that were forked meanwhile. It does not wait for their end.
// An empty name and a directory that is gone have none.
func KillGroup(dir string) {
	if dir == "" || os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0) == nil {
		return
	}
	for range 10 {
		b, err := os.ReadFile(dir + "/cgroup.procs")
		if err != nil || len(b) == 0 {
			return
		}
		for _, line := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(line)); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}
