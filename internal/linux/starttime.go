package linux

import (
	"os"
	"strconv"
	"strings"
)

// StartTime reads when a process started, in clock ticks after boot (proc_pid_stat(5), field 22). With its pid it
// names a process for good. It is 0 for one that is gone.
func StartTime(pid int) uint64 { return statField(pid, 22) }

// Parent reads who is the parent of a process (field 4), 0 of one that is gone.
func Parent(pid int) int { return int(statField(pid, 4)) }

// statField reads a number of /proc/PID/stat, by its place there counted from 1; from 3 on.
func statField(pid, n int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	s := string(b) // the name, field 2, is in parentheses and may hold anything
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < n-2 {
		return 0
	}
	v, _ := strconv.ParseUint(f[n-3], 10, 64)
	return v
}
