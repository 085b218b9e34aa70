package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sharedPID is a pod whose containers are in one PID namespace, with a pause process as its first.
func sharedPID(c *criapi.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
}

func inSharedPID(c *criapi.ContainerConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
}

// TestPauseHasNothing: a container that may look into every process of its pod (CAP_SYS_PTRACE) finds nothing of the node
// in the pause process, no right, and no way to anything else through it.
func TestPauseHasNothing(t *testing.T) {
	n := start(t)
	secret := filepath.Join(n.Dir, "secret")
	if err := os.WriteFile(secret, []byte("of the node"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(secret)
	debugger := secure(func(s *criapi.LinuxContainerSecurityContext) {
		s.Capabilities = &criapi.Capability{AddCapabilities: []string{"SYS_PTRACE"}}
		s.Apparmor = unconfined // the default profile lets nobody look into pause at all
	})
	for _, x := range []struct {
		name string
		pod  []func(*criapi.PodSandboxConfig)
		ctr  []func(*criapi.ContainerConfig)
		ids  string // uid and gid of pause, in the pod
	}{
		{name: "plain", ids: "65535 65535"},
		{name: "with a user", ids: "1234 5678", pod: []func(*criapi.PodSandboxConfig){func(c *criapi.PodSandboxConfig) {
			c.Linux.SecurityContext.RunAsUser, c.Linux.SecurityContext.RunAsGroup = &criapi.Int64Value{Value: 1234}, &criapi.Int64Value{Value: 5678}
		}}},
		{name: "user namespace", ids: "65535 65535", pod: []func(*criapi.PodSandboxConfig){usernsPod}, ctr: []func(*criapi.ContainerConfig){usernsContainer}},
		{name: "the node's network", ids: "65535 65535", pod: []func(*criapi.PodSandboxConfig){func(c *criapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
		}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			c := n.runPod("pause", append(x.pod, sharedPID)...).run("main", "", append(x.ctr, idle, inSharedPID, debugger)...)
			defer n.removeAll()
			if got := c.exec("cat /proc/1/comm"); got != "cri-mini-pause" {
				t.Fatalf("process 1 is %q", got)
			}
			if got := c.exec("awk '/^[UG]id/{printf \"%s \", $2} /^(Cap.*|NoNewPrivs|Seccomp):/{printf \"%s \", $2}' /proc/1/status"); got != x.ids+" "+strings.Repeat("0000000000000000 ", 5)+"1 2" {
				t.Errorf("pause has %q", got)
			}
			r, err := c.tryExec(5, "cat /proc/1/root"+secret+"; echo x > /proc/1/root/file; ls -A /proc/1/root/ /proc/1/cwd/; for i in 0 1 2; do readlink /proc/1/fd/$i; done")
			seen := strings.Join(strings.Fields(string(r.GetStdout())), " ")
			if want := "/proc/1/cwd/: /proc/1/root/: /dev/null /dev/null /dev/null"; err != nil || seen != want && x.name != "user namespace" || strings.Contains(seen, "of the node") {
				t.Errorf("through process 1 the container sees %q, %q, %v; want %q", seen, r.GetStderr(), err, want)
			}
			for _, line := range strings.Split(c.exec("cat /proc/1/mountinfo 2>/dev/null; true"), "\n") {
				if line != "" && !strings.Contains(line, " - tmpfs ") {
					t.Errorf("pause has the mount %q", line)
				}
			}
		})
	}
}

// TestPauseProfile: the pod's own seccomp profile is the pause process's, the deprecated form too.
func TestPauseProfile(t *testing.T) {
	n := start(t)
	profile := filepath.Join(n.Dir, "pause.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(profile)
	local := func(path string) *criapi.SecurityProfile {
		return &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: path}
	}
	type sc = criapi.LinuxSandboxSecurityContext
	for _, x := range []struct {
		name string
		mod  func(*sc)
		mode string
		says string
	}{
		{"none said", func(s *sc) { s.Seccomp = nil }, "0", ""},
		{"unconfined", func(s *sc) { s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Unconfined} }, "0", ""},
		{"localhost", func(s *sc) { s.Seccomp = local(profile) }, "2", ""},
		{"deprecated default", func(s *sc) { s.Seccomp, s.SeccompProfilePath = nil, "runtime/default" }, "2", ""}, //nolint:staticcheck // old clients fill it in
		{"missing", func(s *sc) { s.Seccomp = local(profile + ".none") }, "", "pause.json.none does not exist on this node"},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			config := podConfig("pause", sharedPID, func(c *criapi.PodSandboxConfig) { x.mod(c.Linux.SecurityContext) })
			r, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: config})
			if x.says != "" {
				mustFail(t, err, codes.InvalidArgument, x.says, "linux.security_context.seccomp.localhost_ref")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer n.removeAll()
			c := (&pod{n: n, id: r.PodSandboxId, config: config}).run("main", "", idle, inSharedPID)
			if got := c.proc("1", "Seccomp"); got != x.mode {
				t.Errorf("seccomp mode of pause is %q, want %s", got, x.mode)
			}
		})
	}
}
