package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/test/testbed"
)

// programs is the directory of the static binaries that the tests run, built once.
var programs string

// ours is the cgroup below which the tests' containers are.
var ours = fmt.Sprintf("/mini-runc-test-%d", os.Getpid())

// insideEnv is set in the copy of the test program that runs in namespaces of its own.
const insideEnv = "MINI_RUNC_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	if attack, ok := attacks[os.Getenv(attackEnv)]; ok {
		attack()
		os.Exit(0)
	}
	// What whoever runs the tests has left open (a lock, say) is not ours to pass on: --preserve-fds counts descriptors.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	programs = os.Getenv(insideEnv)
	if programs != "" || os.Getuid() != 0 {
		code := m.Run()
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + ours); len(left) > 0 {
			fmt.Fprintln(os.Stderr, "left cgroups:", left)
			code = 1
		}
		os.Exit(code)
	}
	os.Exit(inNamespaces())
}

// inNamespaces builds the programs and runs this test program again where it can do the machine no harm.
func inNamespaces() int {
	dir, err := os.MkdirTemp("", "mini-runc-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	err = os.Chmod(dir, 0o755) // for users without privileges
	if err == nil {
		err = testbed.Programs(dir, "mini-runc", fullName, "cri-mini-init")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	again := exec.Command(os.Args[0], os.Args[1:]...)
	again.Env = append(os.Environ(), insideEnv+"="+dir)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := again.Run(); err != nil {
		return 1
	}
	return 0
}

func needCompiler(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("there is no C compiler: apt-get install gcc libc6-dev")
	}
}

// pureV2 tells a machine with cgroup v2 alone.
func pureV2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// groupDir is where a controller's groups are.
func groupDir(controller string) string {
	if pureV2() {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/" + controller
}

// bundleDir is a bundle under test with a root directory of mini-runc's that nobody else uses.
type bundleDir struct {
	t    testing.TB
	dir  string // has rootfs and config.json
	root string // of mini-runc
	spec *specs.Spec
	user uint32 // who calls it
}

// newBundle makes a bundle of a static busybox that runs a shell script.
func newBundle(t testing.TB, script string) *bundleDir {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("runs containers: must be root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox: apt-get install busybox-static")
	}
	dir, err := os.MkdirTemp("/var/tmp", "mini-runc-test-")
	must(t, err)
	must(t, os.Chmod(dir, 0o711)) // the root of a user namespace has to reach its files
	b := &bundleDir{t: t, dir: dir, root: filepath.Join(dir, "root"), spec: exampleSpec(false)}
	t.Cleanup(b.cleanup)
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "rec"} {
		must(t, os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755))
	}
	program, err := os.ReadFile("/bin/busybox")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), program, 0o755))
	must(t, os.Link(filepath.Join(dir, "rootfs/bin/busybox"), filepath.Join(dir, "rootfs/bin/sh")))
	b.spec.Process.Terminal = false
	b.spec.Process.Args = []string{"sh", "-c", script}
	b.spec.Linux.CgroupsPath = ours + "/" + filepath.Base(dir)
	return b
}

// cleanup removes what a failed test has left and checks that there is nothing else.
func (b *bundleDir) cleanup() {
	entries, _ := os.ReadDir(b.root)
	for _, e := range entries {
		if e.Name() == seccompDir {
			continue
		}
		b.mini("delete", "--force", e.Name())
		b.t.Errorf("the test left container %s", e.Name())
	}
	b.nothingLeft()
	if err := os.RemoveAll(b.dir); err != nil {
		b.t.Error(err)
	}
}

// nothingLeft checks for what a container may leave behind: directories, mounts, cgroups.
func (b *bundleDir) nothingLeft() {
	b.t.Helper()
	entries, _ := os.ReadDir(b.root)
	for _, e := range entries {
		if e.Name() == seccompDir {
			continue
		}
		b.t.Errorf("left below --root: %s", e.Name())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(b.t, err)
	if strings.Contains(string(mounts), b.dir) {
		b.t.Errorf("left mounted below %s:\n%s", b.dir, mounts)
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if b.spec.Linux.CgroupsPath == "" { // rootless: it had none
			break
		}
		left, _ := filepath.Glob(pattern + b.spec.Linux.CgroupsPath)
		if len(left) > 0 {
			b.t.Errorf("left cgroups: %v", left)
		}
	}
}

// write puts the specification into the bundle.
func (b *bundleDir) write() {
	b.t.Helper()
	text, err := json.MarshalIndent(b.spec, "", " ")
	must(b.t, err)
	must(b.t, os.WriteFile(filepath.Join(b.dir, "config.json"), text, 0o644))
}

// result is how a call of mini-runc ended.
type result struct {
	out, err string
	code     int
}

// command prepares a call. Its streams are files: a pipe would stay open until the container ends.
func (b *bundleDir) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(programs, "mini-runc"), append([]string{"--root", b.root}, args...)...)
	cmd.Dir = b.dir
	if b.user != 0 {
		cmd.SysProcAttr = asUser(b.user)
	}
	return cmd
}

func (b *bundleDir) mini(args ...string) result { return b.call(b.command(args...)) }

func (b *bundleDir) call(cmd *exec.Cmd) result {
	b.t.Helper()
	out, err := os.CreateTemp(b.dir, "out-")
	must(b.t, err)
	defer out.Close()
	errs, err := os.CreateTemp(b.dir, "err-")
	must(b.t, err)
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	said, _ := os.ReadFile(out.Name())
	complained, _ := os.ReadFile(errs.Name())
	return result{string(said), string(complained), cmd.ProcessState.ExitCode()}
}

// ok calls mini-runc and wants success without a word on standard error.
func (b *bundleDir) ok(args ...string) string {
	b.t.Helper()
	r := b.mini(args...)
	if r.code != 0 || r.err != "" {
		b.t.Fatalf("mini-runc %q: exit status %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// fails calls mini-runc and wants an error with these words in it.
func (b *bundleDir) fails(words string, args ...string) {
	b.t.Helper()
	r := b.mini(args...)
	if r.code == 0 || !strings.Contains(r.err, words) || strings.Count(r.err, "\n") != 1 {
		b.t.Errorf("mini-runc %q: exit status %d, want one line with %q\n%s%s", args, r.code, words, r.out, r.err)
	}
}

// status gives what state says.
func (b *bundleDir) status(id string) string {
	b.t.Helper()
	var s specs.State
	must(b.t, json.Unmarshal([]byte(b.ok("state", id)), &s))
	return string(s.Status)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want compares lines.
func want(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
