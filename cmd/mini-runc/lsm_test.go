package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// loadProfile gives the kernel an AppArmor profile that forbids one file, and takes it away at the end.
func loadProfile(t *testing.T, name, forbidden string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "profile")
	must(t, os.WriteFile(file, []byte("profile "+name+" flags=(attach_disconnected,mediate_deleted) {\n"+
		" file,\n capability,\n network,\n signal,\n ptrace,\n unix,\n mount,\n umount,\n deny "+forbidden+" rw,\n}\n"), 0o600))
	if out, err := exec.Command("apparmor_parser", "-K", "-r", file).CombinedOutput(); err != nil {
		t.Fatalf("load profile: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("apparmor_parser", "-R", file).CombinedOutput(); err != nil {
			t.Errorf("remove profile: %v\n%s", err, out)
		}
	})
}

// TestAppArmor: the profile is in force for the program and for an exec, which may have another, and never for init. On a
// machine without AppArmor a profile is an error.
func TestAppArmor(t *testing.T) {
	if text, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(text), "Y") {
		b := newBundle(t, "true")
		b.spec.Process.ApparmorProfile = "unconfined"
		b.write()
		b.ok("run", "x")
		b.spec.Process.ApparmorProfile = "some-profile"
		b.write()
		b.fails(`process.apparmorProfile: "some-profile" cannot be applied: this kernel has no AppArmor`, "run", "x")
		b.nothingLeft()
		return
	}
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		t.Skip("needs apparmor_parser: apt-get install apparmor")
	}
	loadProfile(t, "mini-runc-test-first", "/etc/first")
	loadProfile(t, "mini-runc-test-second", "/etc/second")
	b := running(t, func(s *specs.Spec) { s.Process.ApparmorProfile = "mini-runc-test-first" })
	for _, name := range []string{"first", "second"} {
		must(t, os.WriteFile(filepath.Join(b.dir, "rootfs/etc", name), []byte(name+"\n"), 0o644))
	}
	want(t, procFile(t, b.pid("x"), "attr/current"), "mini-runc-test-first (enforce)\n")
	const script = "cat /proc/self/attr/current /etc/first /etc/second 2>&1"
	const denied = "cat: can't open '/etc/%': Permission denied\n"
	want(t, b.mini("exec", "x", "sh", "-c", script).out, "mini-runc-test-first (enforce)\n"+strings.ReplaceAll(denied, "%", "first")+"second\n")
	want(t, b.mini("exec", "--apparmor", "mini-runc-test-second", "x", "sh", "-c", script).out,
		"mini-runc-test-second (enforce)\nfirst\n"+strings.ReplaceAll(denied, "%", "second"))
	b.fails("lsm_exec apparmor/exec", "exec", "--apparmor", "no-such-profile", "x", "true")
}

// TestSELinux: the program and the files of new file systems have the labels. Where the policy is, nobody here knows: the
// labels are the ones that we and our /proc have. On a machine without SELinux a label is an error.
func TestSELinux(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		for field, set := range map[string]func(*specs.Spec){
			"process.selinuxLabel": func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c:s0" },
			"linux.mountLabel":     func(s *specs.Spec) { s.Linux.MountLabel = "a:b:c:s0" },
		} {
			b := newBundle(t, "true")
			set(b.spec)
			b.write()
			b.fails(field+`: "a:b:c:s0" cannot be applied: this kernel has no SELinux`, "run", "x")
			b.nothingLeft()
		}
		return
	}
	text, err := os.ReadFile("/proc/self/attr/current")
	must(t, err)
	label := strings.TrimRight(string(text), "\x00\n")
	if strings.Count(label, ":") < 2 {
		t.Skipf("SELinux has no policy: our own label is %q", label)
	}
	b := running(t, func(s *specs.Spec) {
		s.Process.SelinuxLabel, s.Linux.MountLabel = label, label
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"})
	})
	want(t, strings.TrimRight(procFile(t, b.pid("x"), "attr/current"), "\x00\n"), label)
	want(t, strings.TrimRight(b.ok("exec", "x", "cat", "/proc/self/attr/current"), "\x00\n"), label)
	for line := range strings.Lines(b.ok("exec", "x", "cat", "/proc/self/mountinfo")) {
		if strings.Contains(line, " /tmp ") && !strings.Contains(line, "context="+label) {
			t.Errorf("/tmp has another label: %s", line)
		}
	}
}
