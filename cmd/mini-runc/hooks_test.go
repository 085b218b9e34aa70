package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hook writes its kind, the state that it got and the host name that it sees.
func hook(kind, file, more string) specs.Hook {
	script := "{ echo " + kind + "; cat; echo; busybox hostname; } >> " + file + "; " + more
	return specs.Hook{Path: "/bin/busybox", Args: []string{"busybox", "sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}
}

// sixHooks records all six in one file.
func (b *bundleDir) sixHooks() (file string) {
	rec := b.record()
	file = filepath.Join(rec, "hooks")
	must(b.t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin/cat")))
	one := func(kind string) []specs.Hook { return []specs.Hook{hook(kind, file, "")} }
	b.spec.Hostname = "inside"
	b.spec.Hooks = &specs.Hooks{
		Prestart: one("prestart"), CreateRuntime: one("createRuntime"), CreateContainer: one("createContainer"), //nolint:staticcheck // deprecated, but in the specification
		StartContainer: []specs.Hook{hook("startContainer", "/rec/hooks", "")}, Poststart: one("poststart"), Poststop: one("poststop"),
	}
	return file
}

// recorded reads the file: "kind status inside|outside" for each hook.
func (b *bundleDir) recorded(file string) string {
	text, err := os.ReadFile(file)
	must(b.t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var out []string
	for i := 0; i+2 < len(lines); i += 3 {
		var s specs.State
		must(b.t, json.Unmarshal([]byte(lines[i+1]), &s))
		if s.ID != "x" || s.Bundle != b.dir || s.Version == "" || (s.Pid == 0) != (lines[i] == "poststop") {
			b.t.Errorf("state of %s: %s", lines[i], lines[i+1])
		}
		where := "outside"
		if lines[i+2] == "inside" {
			where = "inside"
		}
		out = append(out, lines[i]+" "+string(s.Status)+" "+where)
	}
	return strings.Join(out, "\n")
}

// TestHooks: all six in their order, with the state on standard input, in the namespaces where they belong.
func TestHooks(t *testing.T) {
	const made = "prestart creating outside\ncreateRuntime creating outside\ncreateContainer creating inside"
	const rest = "\nstartContainer created inside\npoststart running outside"
	b := newBundle(t, "exec busybox sleep 1000")
	file := b.sixHooks()
	b.write()
	b.ok("create", "x")
	want(t, b.recorded(file), made)
	b.ok("start", "x")
	want(t, b.recorded(file), made+rest)
	b.ok("delete", "-f", "x")
	want(t, b.recorded(file), made+rest+"\npoststop stopped outside")

	must(t, os.Remove(file))
	b.spec.Process.Args = []string{"sh", "-c", "exit 9"}
	b.write()
	if r := b.mini("run", "x"); r.code != 9 {
		t.Errorf("%+v", r)
	}
	want(t, b.recorded(file), made+rest+"\npoststop stopped outside")
}

// TestHookAsksForState: create waits for the hook, and the hook's state does not wait for create.
func TestHookAsksForState(t *testing.T) {
	b := newBundle(t, "true")
	out := filepath.Join(b.dir, "state.json")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/busybox", Args: []string{
		"busybox", "sh", "-c", filepath.Join(programs, "mini-runc") + " --root " + b.root + " state x > " + out + " 2>&1",
	}}}}
	b.write()
	b.ok("create", "x")
	var s specs.State
	text, _ := os.ReadFile(out)
	if err := json.Unmarshal(text, &s); err != nil || s.Status != specs.StateCreating {
		t.Errorf("state said %s", text)
	}
	b.ok("delete", "x")
}

// TestHookFails: before the program runs it is an error that leaves nothing; poststop hooks are run for what was
// undone, and one that fails is a warning.
func TestHookFails(t *testing.T) {
	const fail = "busybox echo why >&2; exit 3"
	for _, tc := range []struct {
		name  string
		place func(h *specs.Hooks) *[]specs.Hook
		words []string
	}{
		{"prestart", func(h *specs.Hooks) *[]specs.Hook { return &h.Prestart }, []string{"hook prestart /bin/busybox", "exit status 3", "why"}}, //nolint:staticcheck // deprecated, but in the specification
		{"createRuntime", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateRuntime }, []string{"hook createRuntime /bin/busybox", "exit status 3", "why"}},
		{"createContainer", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateContainer }, []string{"hook createContainer /bin/busybox", "exit status 3"}},
		{"startContainer", func(h *specs.Hooks) *[]specs.Hook { return &h.StartContainer }, []string{"hook startContainer /bin/busybox", "exit status 3"}},
		{"poststart", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststart }, []string{"hook poststart /bin/busybox", "exit status 3", "why"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "exec busybox sleep 1000")
			file := b.sixHooks()
			list := tc.place(b.spec.Hooks)
			*list = []specs.Hook{{Path: "/bin/busybox", Args: []string{"busybox", "sh", "-c", fail}, Env: []string{"PATH=/bin"}}}
			b.spec.Hooks.Poststop = append(b.spec.Hooks.Poststop, specs.Hook{Path: "/bin/false"})
			b.write()
			r := b.mini("run", "-d", "x")
			if r.code != 1 {
				t.Errorf("exit status %d", r.code)
			}
			for _, w := range append(tc.words, "warning: container x: hook poststop /bin/false: exit status 1") {
				if !strings.Contains(r.err, w) {
					t.Errorf("error lacks %q: %s", w, r.err)
				}
			}
			if got := b.recorded(file); !strings.HasSuffix(got, "poststop stopped outside") {
				t.Errorf("hooks:\n%s", got)
			}
			b.nothingLeft()
		})
	}
}

// TestHookTimeout: a hook that takes too long is killed.
func TestHookTimeout(t *testing.T) {
	one := 1
	for _, inside := range []bool{false, true} {
		b := newBundle(t, "true")
		h := []specs.Hook{{Path: "/bin/busybox", Args: []string{"busybox", "sleep", "100"}, Timeout: &one}}
		b.spec.Hooks = &specs.Hooks{CreateRuntime: h}
		if inside {
			b.spec.Hooks = &specs.Hooks{CreateContainer: h}
		}
		b.write()
		b.fails("no end", "create", "x")
		b.nothingLeft()
	}
}

// TestStartHookFails between create and start: start says so, and the container has stopped.
func TestStartHookFails(t *testing.T) {
	for _, kind := range []string{"startContainer", "poststart"} {
		b := newBundle(t, "exec busybox sleep 1000")
		h := []specs.Hook{{Path: "/bin/busybox", Args: []string{"busybox", "sh", "-c", "exit 4"}}}
		b.spec.Hooks = &specs.Hooks{StartContainer: h}
		if kind == "poststart" {
			b.spec.Hooks = &specs.Hooks{Poststart: h}
		}
		b.write()
		b.ok("create", "x")
		b.fails("exit status 4", "start", "x")
		b.waitStatus("x", "stopped")
		b.ok("delete", "x")
	}
}

// TestHookDirectory: hooks outside run in the bundle; those of createContainer in the root file system, with its mounts made
// and the host's tree still there, so that what they mount is the container's.
func TestHookDirectory(t *testing.T) {
	b := newBundle(t, "busybox ls /tmp; busybox cat /etc/hooked")
	file := filepath.Join(b.dir, "pwd")
	hook := func(script string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/busybox", Args: []string{"busybox", "sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}}}
	}
	b.spec.Hooks = &specs.Hooks{
		CreateRuntime:   hook("pwd >> " + file + "; echo runtime > rootfs/etc/hooked"),
		CreateContainer: hook("pwd >> " + file + "; test -e proc/self/status && busybox mount -t tmpfs hooked tmp && echo > tmp/made"),
		Poststart:       hook("pwd >> " + file),
		Poststop:        hook("pwd >> " + file),
	}
	b.write()
	b.ok("create", "x")
	start := b.command("start", "x")
	start.Dir = "/"
	must(t, start.Run())
	b.waitStatus("x", "stopped")
	remove := b.command("delete", "x")
	remove.Dir = "/"
	must(t, remove.Run())
	text, err := os.ReadFile(file)
	must(t, err)
	want(t, string(text), b.dir+"\n"+b.dir+"/rootfs\n"+b.dir+"\n"+b.dir+"\n")
	must(t, os.Remove(file))
	want(t, b.ok("run", "x"), "made\nruntime\n")
}
