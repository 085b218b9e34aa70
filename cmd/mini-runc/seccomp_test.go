package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	oci "github.com/opencontainers/runtime-spec/specs-go/features"
)

// TestSeccompIsKept: a profile is compiled once, whoever asks for it next; what is damaged is compiled again.
func TestSeccompIsKept(t *testing.T) {
	errno := uint(51) // EL2HLT: nobody else says that
	profile := func(names ...string) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActErrno, ErrnoRet: &errno}}}
	}
	const denied = "mkdir: can't create directory '/tmp/x': Level 2 halted\n"
	b := newBundle(t, "busybox mkdir /tmp/x")
	b.spec.Linux.Seccomp = profile("mkdir", "mkdirat")
	b.write()
	b.ok("plan")
	kept := func() []string {
		files, _ := filepath.Glob(filepath.Join(b.root, seccompDir, "????????*???????????????")) // not the count
		return files
	}
	if len(kept()) != 0 {
		t.Error("plan has written a filter")
	}
	for range 2 {
		if r := b.mini("run", "x"); r.code != 1 || r.err != denied {
			t.Fatalf("%+v", r)
		}
	}
	if len(kept()) != 1 {
		t.Fatalf("%d filters after one profile", len(kept()))
	}
	first := kept()[0]
	whole, err := os.ReadFile(first)
	must(t, err)
	must(t, os.Truncate(first, int64(len(whole)-40)))
	if r := b.mini("run", "x"); r.err != denied {
		t.Errorf("%+v", r)
	}
	if again, _ := os.ReadFile(first); string(again) != string(whole) {
		t.Error("the damaged filter is still there")
	}
	b.spec.Linux.Seccomp = profile("mkdir", "mkdirat", "acct")
	b.write()
	b.mini("run", "x")
	if len(kept()) != 2 {
		t.Errorf("%d filters after two profiles", len(kept()))
	}
	want(t, b.ok("list", "-q"), "")
	// Three compilations: two profiles, and the damaged one again.
	var f oci.Features
	must(t, json.Unmarshal([]byte(b.ok("features")), &f))
	want(t, f.Annotations["io.github.cri-mini.seccomp.filters-compiled"], "3")
	if level, err := strconv.Atoi(f.Annotations["io.github.cri-mini.libseccomp.api-level"]); err != nil || level < 3 {
		t.Errorf("features: %v", f.Annotations)
	}
}

// TestSeccompWithoutLibrary: for a filter that is kept nobody executes the full program; for a new one it is named.
func TestSeccompWithoutLibrary(t *testing.T) {
	errno := uint(51)
	b := newBundle(t, "busybox mkdir /tmp/x")
	rule := specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule}}
	b.write()
	const denied = "mkdir: can't create directory '/tmp/x': Level 2 halted\n"
	if r := b.mini("run", "x"); r.err != denied {
		t.Fatalf("%+v", r)
	}
	// The same programs, but the full one has nothing of it but size and time.
	for _, name := range []string{"mini-runc", "cri-mini-init"} {
		text, err := os.ReadFile(filepath.Join(programs, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(b.dir, name), text, 0o755))
	}
	full, err := os.Stat(filepath.Join(programs, fullName))
	must(t, err)
	empty := filepath.Join(b.dir, fullName)
	must(t, os.WriteFile(empty, nil, 0o755))
	must(t, os.Truncate(empty, full.Size()))
	must(t, os.Chtimes(empty, full.ModTime(), full.ModTime()))
	call := func() result {
		cmd := b.command("run", "x")
		cmd.Path = filepath.Join(b.dir, "mini-runc")
		return b.call(cmd)
	}
	if r := call(); r.err != denied {
		t.Errorf("%+v", r)
	}
	b.spec.Linux.Seccomp.Syscalls[0].Names = []string{"mkdirat", "mkdir", "acct"}
	b.write()
	if r := call(); r.code == 0 || !strings.Contains(r.err, "execute "+empty+", which has libseccomp: exec format error") {
		t.Errorf("%+v", r)
	}
	b.nothingLeft()
}

func TestOldFiltersGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), seccompDir)
	for i := range seccompKept + 5 {
		must(t, keepFilter(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 8), 0))
	}
	if entries, _ := os.ReadDir(dir); len(entries) != seccompKept {
		t.Errorf("%d filters are kept", len(entries))
	}
}

// TestOwnStdio: a program without rights opens the stream that it was given.
func TestOwnStdio(t *testing.T) {
	b := newBundle(t, "echo again > /dev/stdout")
	b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	b.write()
	r, w, err := os.Pipe()
	must(t, err)
	cmd := b.command("run", "x")
	cmd.Stdout, cmd.Stderr = w, w
	must(t, cmd.Run())
	w.Close()
	buf := make([]byte, 100)
	n, _ := r.Read(buf)
	want(t, string(buf[:n]), "again\n")
	r.Close()
	if r := b.mini("run", "x"); r.code == 0 {
		t.Errorf("a file of ours was given away: %+v", r)
	}
	out := filepath.Join(b.dir, "log")
	f, err := os.Create(out)
	must(t, err)
	defer f.Close()
	create := b.command("create", "x")
	create.Stdout, create.Stderr = f, f
	must(t, create.Run())
	b.ok("start", "x")
	b.waitStatus("x", "stopped")
	b.ok("delete", "x")
	text, _ := os.ReadFile(out)
	want(t, string(text), "again\n")
}
