package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory is the proportional set size (PSS: private pages, and a share of shared
// ones) of a daemon and of its helpers, in KiB, from smaps_rollup (proc(5)).
type memory struct {
	Pods    int   `json:"pods"`
	Daemon  int64 `json:"daemon_pss_kib"`
	Helpers int   `json:"helpers"`
	PSS     int64 `json:"helpers_pss_kib"`
}

func (m memory) String() string {
	return fmt.Sprintf("memory with %d pods: daemon %.1f MiB PSS, %d helpers %.1f MiB PSS",
		m.Pods, float64(m.Daemon)/1024, m.Helpers, float64(m.PSS)/1024)
}

// helperNames are programs that stand between a daemon and its containers, by
// comm or by the name they were called by.
var helperNames = []string{"cri-mini-init", "cri-mini-monitor", "cri-mini-pause", "containerd-shim", "conmon", "pause"}

func measureMemory(daemon, pods int) memory {
	m := memory{Pods: pods, Daemon: pss(fmt.Sprintf("/proc/%d", daemon))}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if filepath.Base(dir) != strconv.Itoa(daemon) && isHelper(dir) {
			m.Helpers++
			m.PSS += pss(dir)
		}
	}
	return m
}

func isHelper(dir string) bool {
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return false // it is gone
	}
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	arg0, _, _ := bytes.Cut(cmdline, []byte{0})
	return helperName(strings.TrimSpace(string(comm)), filepath.Base(string(arg0)))
}

func helperName(comm, arg0 string) bool {
	for _, name := range helperNames {
		short := name[:min(len(name), 15)] // the kernel cuts comm there
		if strings.HasPrefix(comm, short) || strings.HasPrefix(arg0, name) {
			return true
		}
	}
	return false
}

// pss returns 0 for a process that is gone or of somebody else.
func pss(dir string) int64 {
	data, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		return 0
	}
	return parsePSS(string(data))
}

func parsePSS(rollup string) int64 {
	for line := range strings.Lines(rollup) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "Pss:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}
