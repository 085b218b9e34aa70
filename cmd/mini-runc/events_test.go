package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestEventsStats: one measurement, in runc's names.
func TestEventsStats(t *testing.T) {
	b := running(t, func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(50))}
	})
	var e struct {
		Type, ID string
		Data     struct {
			CPU struct {
				Usage struct {
					Total  uint64
					PerCPU []uint64
				}
			}
			CPUSet struct{ CPUs, Mems []int }
			Memory struct {
				Usage struct{ Limit, Usage uint64 }
				Raw   map[string]uint64
			}
			Pids struct{ Current, Limit uint64 }
		}
	}
	must(t, json.Unmarshal([]byte(b.ok("events", "--stats", "x")), &e))
	d := e.Data
	if e.Type != "stats" || e.ID != "x" || d.CPU.Usage.Total == 0 || d.Memory.Usage.Usage == 0 || len(d.Memory.Raw) == 0 ||
		!pureV2() && (len(d.CPU.Usage.PerCPU) == 0 || len(d.CPUSet.CPUs) == 0 || len(d.CPUSet.Mems) == 0) {
		t.Errorf("%+v", e)
	}
	want(t, fmt.Sprint(d.Memory.Usage.Limit, d.Pids), fmt.Sprint(64<<20, struct{ Current, Limit uint64 }{1, 50}))
	b.fails("duration interval must be greater than 0", "events", "--interval", "0s", "x")
	b.fails("container does not exist", "events", "y")
}

// TestEventsOOM: each kill is an event, and the end of the container is the end of the events.
func TestEventsOOM(t *testing.T) {
	b := newBundle(t, "read x < /rec/go; busybox dd if=/dev/zero of=/dev/null bs=64M count=1; exit 0")
	rec := b.record()
	must(t, unix.Mkfifo(filepath.Join(rec, "go"), 0o600))
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(16 << 20))}
	b.write()
	b.ok("run", "-d", "x")
	cmd := b.command("events", "--interval", "20ms", "x")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	kinds := map[string]int{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e event
		must(t, json.Unmarshal(lines.Bytes(), &e))
		if kinds[e.Type]++; e.Type == "stats" && kinds["stats"] == 1 { // it watches: now go on
			must(t, os.WriteFile(filepath.Join(rec, "go"), []byte("\n"), 0))
		}
	}
	must(t, cmd.Wait())
	if kinds["oom"] != 1 || kinds["stats"] == 0 {
		t.Errorf("events: %v", kinds)
	}
	b.waitStatus("x", "stopped")
	b.fails("measure container x: container not running: it is stopped", "events", "--stats", "x")
	b.fails("watch container x: container not running: it is stopped", "events", "x")
	b.ok("delete", "x")
}

// TestPidfdSocket: a pidfd of init or of the exec goes to whoever listens.
func TestPidfdSocket(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	b.write()
	path := filepath.Join(b.dir, "pidfd.sock")
	b.fails("--pidfd-socket: ", "create", "--pidfd-socket", path, "x")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	defer l.Close()
	// The packet waits in the socket's buffer until somebody accepts.
	receive := func() (word string, pid int) {
		t.Helper()
		conn, err := l.AcceptUnix()
		must(t, err)
		defer conn.Close()
		data, oob := make([]byte, 64), make([]byte, 64)
		n, k, _, _, err := conn.ReadMsgUnix(data, oob)
		must(t, err)
		cmsgs, err := unix.ParseSocketControlMessage(oob[:k])
		must(t, err)
		fds, err := unix.ParseUnixRights(&cmsgs[0])
		must(t, err)
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fds[0]))
		must(t, err)
		must(t, unix.Close(fds[0]))
		_, err = fmt.Sscanf(string(info[bytes.Index(info, []byte("\nPid:"))+1:]), "Pid: %d", &pid)
		must(t, err)
		return string(data[:n]), pid
	}
	b.ok("create", "--pidfd-socket", path, "x")
	if word, pid := receive(); word != "standard" || pid != b.pid("x") {
		t.Errorf("create sent %q and process %d; init is %d", word, pid, b.pid("x"))
	}
	b.ok("start", "x")
	b.ok("exec", "-d", "--pid-file", "exec.pid", "--pidfd-socket", path, "x", "busybox", "sleep", "1000")
	word, pid := receive()
	text, err := os.ReadFile(filepath.Join(b.dir, "exec.pid"))
	must(t, err)
	if word != "setns" || fmt.Sprint(pid) != string(text) {
		t.Errorf("exec sent %q and process %d; its pid file says %s", word, pid, text)
	}
	b.ok("delete", "--force", "x")
	b.ok("run", "-d", "--pidfd-socket", path, "x")
	if word, pid := receive(); word != "standard" || pid != b.pid("x") {
		t.Errorf("run sent %q and process %d", word, pid)
	}
	b.ok("delete", "--force", "x")
}
