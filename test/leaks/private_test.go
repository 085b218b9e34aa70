package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// messy leaves all that it can: a process, cgroups, a mount, a link, files.
const messy = `
set -e
echo "in $RUN"
for h in /sys/fs/cgroup/*/; do [ ! -w "$h/cgroup.procs" ] || mkdir -p "$h/left/over"; done
mount -t tmpfs left "$RUN"
ip link add left0 type bridge
touch "$SCRATCH/left"
sleep 600 &
`

// TestPrivateLeavesNothing ends test/private in every way it can end by itself.
func TestPrivateLeavesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces and cgroups")
	}
	tests := []struct {
		name string
		tail string
		kill syscall.Signal
		want int
	}{
		{name: "success", tail: "exit 0", want: 0},
		{name: "failure", tail: "exit 3", want: 3},
		{name: "SIGTERM", tail: "exec sleep 600", kill: syscall.SIGTERM, want: 143},
		{name: "SIGKILL, and the next run", tail: "exec sleep 600", kill: syscall.SIGKILL, want: -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, code := runPrivate(t, messy+"echo ready\n"+tt.tail, tt.kill)
			if code != tt.want {
				t.Errorf("exit code %d, want %d\n%s", code, tt.want, out)
			}
			name := runName(out)
			if name == "" {
				t.Fatalf("it did not run:\n%s", out)
			}
			if tt.kill == syscall.SIGKILL {
				runPrivate(t, "true", 0)
			}
			for kind, found := range take() {
				for _, f := range found {
					if strings.Contains(f, name) || strings.Contains(f, "left0") {
						t.Errorf("left: %s %s", kind, f)
					}
				}
			}
		})
	}
}

func runName(out string) string {
	_, rest, _ := strings.Cut(out, "in /run/")
	name, _, _ := strings.Cut(rest, "\n")
	return name
}

// runPrivate returns what the script says and its exit code; a signal is sent
// when it says that it is ready.
func runPrivate(t *testing.T, script string, sig syscall.Signal) (string, int) {
	t.Helper()
	cmd := exec.Command("../private", "bash", "-c", script)
	var out bytes.Buffer
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	for b := make([]byte, 4096); ; {
		n, err := read.Read(b)
		out.Write(b[:n])
		if err != nil {
			break
		}
		if sig != 0 && strings.Contains(out.String(), "ready\n") {
			if err := cmd.Process.Signal(sig); err != nil {
				fmt.Fprintln(&out, err)
			}
			if sig == syscall.SIGKILL {
				break // what it leaves holds the pipe open
			}
			sig = 0
		}
	}
	_ = cmd.Wait() // its code says it
	return out.String(), cmd.ProcessState.ExitCode()
}
