package api

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The profile of these tests, and what it denies beside all that the default one allows.
const (
	ownProfile     = "cri-mini-api-test"
	defaultProfile = "cri-mini-default"
	ownRules       = "profile " + ownProfile + " flags=(attach_disconnected) {\n network,\n capability,\n file,\n mount,\n umount,\n signal,\n ptrace,\n deny /tmp/no w,\n}\n"
)

// parser runs apparmor_parser on a profile's text.
func parser(t testing.TB, text string, args ...string) {
	t.Helper()
	cmd := exec.Command("apparmor_parser", append(args, "--skip-cache")...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apparmor_parser: %v: %s", err, out)
	}
}

// onAppArmor skips where the kernel has none: the test node has it (test/node).
func onAppArmor(t testing.TB) {
	t.Helper()
	if on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || !bytes.HasPrefix(on, []byte("Y")) {
		t.Skip("this machine has no AppArmor")
	}
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		t.Skip("this machine has no apparmor_parser: apt-get install apparmor")
	}
}

// TestAppArmor: which profile a container has, its first process and an exec, and that the kernel enforces it.
func TestAppArmor(t *testing.T) {
	n := start(t)
	onAppArmor(t)
	parser(t, ownRules, "--replace")
	t.Cleanup(func() { parser(t, ownRules, "--remove") })
	p := n.runPod("apparmor", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	type sc = criapi.LinuxContainerSecurityContext
	local := func(name string) *criapi.SecurityProfile {
		return &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: name}
	}
	for _, x := range []struct {
		name string
		mod  func(*sc)
		want string
	}{
		{"nothing said", func(*sc) {}, defaultProfile + " (enforce)"},
		{"with no_new_privs", func(s *sc) { s.NoNewPrivs = true }, defaultProfile + " (enforce)"},
		{"RuntimeDefault", func(s *sc) { s.Apparmor = &criapi.SecurityProfile{} }, defaultProfile + " (enforce)"},
		{"deprecated default", func(s *sc) { s.ApparmorProfile = "runtime/default" }, defaultProfile + " (enforce)"}, //nolint:staticcheck // old clients fill it in
		{"Unconfined", func(s *sc) { s.Apparmor = unconfined }, "unconfined"},
		{"deprecated unconfined", func(s *sc) { s.ApparmorProfile = "unconfined" }, "unconfined"}, //nolint:staticcheck // likewise
		{"Localhost", func(s *sc) { s.Apparmor = local(ownProfile) }, ownProfile + " (enforce)"},
		{"Localhost with the deprecated prefix", func(s *sc) { s.Apparmor = local("localhost/" + ownProfile) }, ownProfile + " (enforce)"},
		{"deprecated localhost", func(s *sc) { s.ApparmorProfile = "localhost/" + ownProfile }, ownProfile + " (enforce)"}, //nolint:staticcheck // likewise
		{"the field over the deprecated one", func(s *sc) {
			s.Apparmor, s.ApparmorProfile = local(ownProfile), "localhost/cri-mini-none" //nolint:staticcheck // likewise
		}, ownProfile + " (enforce)"},
		{"privileged", func(s *sc) { s.Privileged, s.Apparmor = true, local(ownProfile) }, "unconfined"},
	} {
		t.Run(x.name, func(t *testing.T) {
			q := &pod{n: &node{n.Daemon, t}, id: p.id, config: p.config}
			c := q.run("main", "", idle, secure(func(s *sc) {
				s.Capabilities = &criapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
				s.Seccomp = nil
				x.mod(s)
			}))
			defer c.remove()
			if got := c.exec("cat /proc/1/attr/current /proc/self/attr/current"); got != x.want+"\n"+x.want {
				t.Errorf("the container and an exec in it run under %q, want %s", got, x.want)
			}
			c.exec("echo x > /tmp/yes")
			for _, act := range []struct{ script, denies string }{
				{"mount -t tmpfs none /mnt", defaultProfile}, {"mount -o remount,bind,rw /etc/hosts", defaultProfile}, {"echo x > /tmp/no", ownProfile},
			} {
				r, err := c.tryExec(60, "mkdir -p /mnt; "+act.script)
				if denied := r.GetExitCode() != 0; err != nil || denied != strings.HasPrefix(x.want, act.denies) {
					t.Errorf("%s: exit code %d, %q, %v", act.script, r.GetExitCode(), r.GetStderr(), err)
				}
			}
		})
	}
	for _, name := range []string{"cri-mini-none", ownProfile + " (enforce)"} {
		_, err := p.tryCreate(containerConfig("bad", "true", secure(func(s *sc) { s.Apparmor = local(name) })))
		mustFail(t, err, codes.InvalidArgument, "linux.security_context.apparmor", name, "is not loaded on this node")
	}
}

// TestAppArmorDefault: it is loaded again when somebody has removed it, and it alone keeps writes away from what of /proc is
// the node's where nothing there is masked or read-only. What is written is what was there.
func TestAppArmorDefault(t *testing.T) {
	n := start(t)
	onAppArmor(t)
	p := n.runPod("unmasked")
	p.run("first", "", idle).remove()
	if err := os.WriteFile("/sys/kernel/security/apparmor/.remove", []byte(defaultProfile), 0); err != nil {
		t.Fatal(err)
	}
	for profile, typ := range map[string]criapi.SecurityProfile_ProfileType{defaultProfile + " (enforce)": criapi.SecurityProfile_RuntimeDefault, "unconfined": criapi.SecurityProfile_Unconfined} {
		t.Run(profile, func(t *testing.T) {
			q := &pod{n: &node{n.Daemon, t}, id: p.id, config: p.config}
			c := q.run("main", "", idle, secure(func(s *criapi.LinuxContainerSecurityContext) {
				s.Apparmor = &criapi.SecurityProfile{ProfileType: typ}
				s.Capabilities = &criapi.Capability{AddCapabilities: []string{"SYS_ADMIN", "NET_ADMIN"}}
				s.MaskedPaths, s.ReadonlyPaths = []string{"/none"}, []string{"/none"}
			}))
			defer c.remove()
			if got := c.exec("cat /proc/self/attr/current"); got != profile {
				t.Errorf("the container runs under %q", got)
			}
			for _, file := range []struct {
				path string
				ours bool
			}{
				{"self/comm", true}, {"sys/kernel/shmmni", true}, {"sys/kernel/msgmni", true}, {"sys/kernel/sem", true}, {"sys/net/ipv4/ip_forward", true},
				{"sys/kernel/core_pattern", false}, {"sys/kernel/sysrq", false}, {"sys/kernel/modprobe", false}, {"sys/vm/swappiness", false}, {"sys/fs/file-max", false}, {"irq/default_smp_affinity", false},
			} {
				r, err := c.tryExec(60, "cat /proc/"+file.path+" > /tmp/was && cat /tmp/was > /proc/"+file.path)
				if written := r.GetExitCode() == 0; err != nil || written != (file.ours || typ == criapi.SecurityProfile_Unconfined) {
					t.Errorf("a write to /proc/%s: exit code %d, %q, %v", file.path, r.GetExitCode(), r.GetStderr(), err)
				}
			}
		})
	}
}

// TestAppArmorWithoutParser: a node that cannot load the default profile refuses who asks for it; who asks for nothing runs.
func TestAppArmorWithoutParser(t *testing.T) {
	n := start(t)
	onAppArmor(t)
	path, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Fatal(err)
	}
	p := n.runPod("no-parser")
	asks := secure(func(s *criapi.LinuxContainerSecurityContext) { s.Apparmor = &criapi.SecurityProfile{} })
	p.run("first", "", idle).remove()
	mustRun(t, "mount", "--bind", "/dev/null", path)
	hidden := true
	show := func() {
		if hidden {
			mustRun(t, "umount", path)
			hidden = false
		}
	}
	defer show()
	if err := os.WriteFile("/sys/kernel/security/apparmor/.remove", []byte(defaultProfile), 0); err != nil {
		t.Fatal(err)
	}
	_, err = p.tryCreate(containerConfig("bad", "true", asks))
	mustFail(t, err, codes.FailedPrecondition, "linux.security_context.apparmor", "apparmor_parser")
	if got := p.run("silent", "", idle).exec("cat /proc/1/attr/current"); got != "unconfined" {
		t.Errorf("a container that asks for nothing runs under %q", got)
	}
	show()
	if got := p.run("again", "", idle, asks).exec("cat /proc/1/attr/current"); got != defaultProfile+" (enforce)" {
		t.Errorf("with a parser again it runs under %q", got)
	}
}
