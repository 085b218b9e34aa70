package api

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestSeccompLocalhostErrors: what is wrong with a profile is said when the container is created, and nothing of it is left.
func TestSeccompLocalhostErrors(t *testing.T) {
	n := start(t)
	dir := filepath.Join(n.Dir, "seccomp")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p := n.runPod("seccomp")
	p.run("first", "", idle) // makes what a pod's containers share
	for _, x := range []struct {
		name, ref, content string
		says               []string
	}{
		{name: "missing", says: []string{"seccomp.localhost_ref", "does not exist on this node"}},
		{name: "relative", ref: "profiles/x.json", says: []string{`seccomp.localhost_ref: "profiles/x.json" is relative`}},
		{name: "no name", ref: " ", says: []string{"seccomp.localhost_ref"}},
		{name: "not JSON", content: "profile x {", says: []string{"seccomp.localhost_ref", "not JSON.json", "invalid character"}},
		{name: "another JSON", content: `["x"]`, says: []string{"seccomp.localhost_ref", "cannot unmarshal"}},
		{name: "no default", content: `{"syscalls":[]}`, says: []string{"seccomp.localhost_ref", "defaultAction is missing"}},
		{name: "unknown default", content: `{"defaultAction":"SCMP_ACT_MAYBE"}`, says: []string{"compile container: linux.seccomp.defaultAction: unknown action", "SCMP_ACT_MAYBE"}},
		{name: "no action", content: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"]}]}`, says: []string{"seccomp.localhost_ref", "syscalls[0] has no action"}},
		{name: "unknown action", content: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_MAYBE"}]}`, says: []string{"linux.seccomp", "SCMP_ACT_MAYBE"}},
		{name: "two forms", content: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`, says: []string{"syscalls[0] has both name and names"}},
		{name: "unknown operator", content: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_ALMOST"}]}]}`, says: []string{"linux.seccomp", "SCMP_CMP_ALMOST"}},
		{name: "a listener that nobody is", content: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}`, says: []string{"linux.seccomp.listenerPath"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			ref := x.ref
			if ref == "" {
				ref = filepath.Join(dir, x.name+".json")
			}
			if x.content != "" {
				if err := os.WriteFile(ref, []byte(x.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n.unchanged(func() {
				_, err := (&pod{n: n, id: p.id, config: p.config}).tryCreate(containerConfig("bad", "true", secure(func(s *criapi.LinuxContainerSecurityContext) {
					s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: ref}
				})))
				mustFail(t, err, codes.InvalidArgument, x.says...)
			})
		})
	}
	// A system call that this kernel does not know is left out: profiles are written for many kernels.
	c := p.run("unknown-call", "echo runs; exec sleep 1000", secure(func(s *criapi.LinuxContainerSecurityContext) {
		ref := filepath.Join(dir, "unknown.json")
		if err := os.WriteFile(ref, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["make_coffee","mkdir"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: ref}
	}))
	c.says("runs")
}
