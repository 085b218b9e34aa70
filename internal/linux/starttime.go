package linux

import (
	"os"
	"strconv"
	"strings"
)

// StartTime reads when a process started, in clock ticks after boot (proc_pid_stat(5), field 22). With its pid it
// names a process for good. It is 0 for one that is gone.
func StartTime(pid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	s := string(b) // the name, field 2, is in parentheses and may hold anything
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0
	}
	v, _ := strconv.ParseUint(f[19], 10, 64)
	return v
}
