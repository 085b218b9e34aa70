package main

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestBadInput: each is one line that names what has to change, and nothing is left of it.
func TestBadInput(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*bundleDir)
		words  string
	}{
		{"field of a wrong type", func(b *bundleDir) { b.text(`{"ociVersion": "1.3.0", "process": {"args": "sh"}}`) }, `config.json:1:48: process.args is a JSON string at byte 48, want a list`},
		{"negative number", func(b *bundleDir) { b.text("{\n \"process\": {\"user\": {\"uid\": -1}}}") }, `config.json:2:31: process.user.uid is a JSON number -1 at byte 33, want a number from 0 to 2^32-1`},
		{"list instead of an object", func(b *bundleDir) { b.text(`[]`) }, `config.json:1:1: the file is a JSON array, not an object`},
		{"not JSON", func(b *bundleDir) { b.text("{\n \"a\": b}") }, `config.json:2:7: not JSON at byte 9`},
		{"half a file", func(b *bundleDir) { b.text(`{"process": {`) }, `config.json: the JSON ends too early`},
		{"two objects", func(b *bundleDir) { b.text(`{} {}`) }, `something follows the end of the JSON`},
		{"no file", func(b *bundleDir) { must(b.t, os.Remove(filepath.Join(b.dir, "config.json"))) }, `config.json: no such file or directory`},
		{"version", func(b *bundleDir) { b.spec.Version = "2.0.0" }, `config.json: ociVersion: "2.0.0"; this runtime knows 1.x`},
		{"no args", func(b *bundleDir) { b.spec.Process.Args = nil }, `process.args: is empty`},
		{"relative cwd", func(b *bundleDir) { b.spec.Process.Cwd = "tmp" }, `process.cwd: "tmp" is relative`},
		{"unknown namespace", func(b *bundleDir) { b.spec.Linux.Namespaces[0].Type = "dream" }, `linux.namespaces[0].type: unknown "dream"`},
		{"missing root", func(b *bundleDir) { b.spec.Root.Path = "nope" }, `nope: no such file or directory`},
		{"missing binary", func(b *bundleDir) { b.spec.Process.Args = []string{"/bin/nope"} }, `exec /bin/nope: no such file or directory`},
		{"binary that is not in PATH", func(b *bundleDir) { b.spec.Process.Args = []string{"nope"} }, `exec nope: executable file not found in $PATH: no such file or directory`},
		{"hook that is not there", func(b *bundleDir) {
			b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/nope"}}}
		}, "hook createRuntime /nope: fork/exec /nope: no such file or directory\n"},
		{"binary that is no program", func(b *bundleDir) { b.spec.Process.Args = []string{"/etc"} }, `exec /etc: permission denied`},
		{"binary for another architecture", func(b *bundleDir) {
			elf := make([]byte, 64)
			copy(elf, "\x7fELF\x02\x01\x01")
			binary.LittleEndian.PutUint16(elf[16:], 2)     // ET_EXEC
			binary.LittleEndian.PutUint16(elf[18:], 0x2e8) // no machine of ours
			must(b.t, os.WriteFile(filepath.Join(b.dir, "rootfs/bin/other"), elf, 0o755))
			b.spec.Process.Args = []string{"/bin/other"}
		}, `exec /bin/other: exec format error: a program for another architecture`},
		{"missing mount source", func(b *bundleDir) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: "/nope", Destination: "/x", Options: []string{"bind"}})
		}, `bind /nope on /x: no such file or directory`},
		{"unknown file system", func(b *bundleDir) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "nofs", Source: "x", Destination: "/tmp"})
		}, `mount nofs on /tmp: no such device`},
		{"unknown limit", func(b *bundleDir) { b.spec.Process.Rlimits[0].Type = "RLIMIT_NOPE" }, `process.rlimits[0].type: unknown "RLIMIT_NOPE"`},
		{"cgroup of somebody else", func(b *bundleDir) { b.spec.Linux.CgroupsPath = "/" }, `linux.cgroupsPath: is the root of the hierarchies`},
		{"cgroup limit", func(b *bundleDir) {
			cpus := &specs.LinuxCPU{Cpus: "4000"}
			b.spec.Linux.Resources.CPU = cpus
		}, `4000`},
		{"seccomp", func(b *bundleDir) {
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NOPE"}
		}, `linux.seccomp`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "true")
			b.write()
			tc.change(b)
			if _, err := os.Stat(filepath.Join(b.dir, "config.json")); err == nil && !b.raw() {
				b.write()
			}
			b.spec.Linux.CgroupsPath = ours + "/" + filepath.Base(b.dir) // what cleanup looks for
			b.fails(tc.words, "run", "x")
			b.nothingLeft()
			r := b.mini("create", "x")
			if r.code == 0 && strings.HasPrefix(tc.name, "missing binary") {
				t.Error("create has not looked for the program")
			}
			if r.code == 0 { // what only exec can find out
				b.fails(tc.words, "start", "x")
				b.waitStatus("x", "stopped")
				b.ok("delete", "x")
			} else if !strings.Contains(r.err, tc.words) {
				t.Errorf("create: %+v", r)
			}
			b.nothingLeft()
		})
	}
}

// text puts another text into config.json.
func (b *bundleDir) text(s string) {
	must(b.t, os.WriteFile(filepath.Join(b.dir, "config.json"), []byte(s), 0o644))
}

// raw tells whether somebody did.
func (b *bundleDir) raw() bool {
	before, _ := json.MarshalIndent(exampleSpec(false), "", " ")
	text, _ := os.ReadFile(filepath.Join(b.dir, "config.json"))
	return len(text) < len(before)/2
}

// TestBadID: an id becomes part of paths.
func TestBadID(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	for _, id := range []string{"../x", "a/b", "", "..", ".", "a b", "ü", strings.Repeat("x", 256)} {
		for _, command := range []string{"run", "create", "start", "state", "kill", "delete", "exec"} {
			args := []string{command, id}
			if command == "exec" {
				args = append(args, "true")
			}
			b.fails("container id", args...)
		}
	}
	if entries, _ := os.ReadDir(b.root); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

// TestBadCommandLine: what is wrong is said, and the exit status is 1.
func TestBadCommandLine(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	must(t, os.Mkdir(b.root, 0o711)) // list does not take one that is not there
	for _, tc := range []struct{ words, line string }{
		{`no command "rnu"`, "rnu"},
		{`"run" requires exactly 1 argument(s): want ID, got []`, "run"},
		{`"run" requires exactly 1 argument(s): want ID, got ["a" "b"]`, "run a b"},
		{`"list" requires exactly 0 argument(s): want no arguments, got ["a"]`, "list a"},
		{`"kill" requires a minimum of 1 argument(s)`, "kill"},
		{`"kill" requires a maximum of 2 argument(s)`, "kill x TERM y"},
		{`flag provided but not defined: -nope`, "run --nope x"},
		{`unknown signal "NOPE"`, "kill x NOPE"},
		{`signal 65 is not between 0 and 64`, "kill x 65"},
		{`invalid format option: "xml"`, "list --format xml"},
		{`invalid value "maybe" for flag -rootless: want true, false or auto`, "--rootless maybe list"},
		{`Option --root argument should not be set to /`, "--root / list"},
		{`container x: container does not exist`, "start x"},
		{`invalid log-format: "xml"`, "--log-format xml list"},
	} {
		b.fails(tc.words, strings.Fields(tc.line)...)
	}
	for _, line := range []string{"--help", "-v", "help", "run --help", "exec -h", "help update"} {
		b.ok(strings.Fields(line)...)
	}
}

// TestCgroupInUse: the limits would be somebody else's, and delete would kill who is there.
func TestCgroupInUse(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 100")
	b.write()
	b.ok("run", "-d", "x")
	b.fails("processes already", "run", "y")
	b.fails("processes already", "create", "y")
	want(t, b.status("x"), "running")
	b.ok("delete", "-f", "x")
}

// TestLog: with --log a record of the error is in the file, for programs that call us.
func TestLog(t *testing.T) {
	b := newBundle(t, "true")
	b.spec.Process.Args = []string{"/nope"}
	b.write()
	b.fails("exec /nope", "--log", "log.json", "--log-format", "json", "run", "x")
	text, err := os.ReadFile(filepath.Join(b.dir, "log.json"))
	must(t, err)
	var record struct {
		Level, Msg, Time, Object string
		Op, Errno                int
	}
	must(t, json.Unmarshal(text, &record))
	if record.Level != "error" || record.Object != "exec /nope" || record.Op < 20 || record.Errno != 2 || !strings.Contains(record.Msg, "no such file") || record.Time == "" {
		t.Errorf("record %+v", record)
	}
	b.fails("exec /nope", "--log", "log.txt", "run", "x")
	if text, _ = os.ReadFile(filepath.Join(b.dir, "log.txt")); !strings.Contains(string(text), ` level=error msg="run container x: op `) {
		t.Errorf("record %s", text)
	}
}
