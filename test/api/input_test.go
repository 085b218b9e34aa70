package api

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPodWithBadInput(t *testing.T) {
	n := start(t)
	for _, c := range []struct {
		name, handler string
		mod           func(*criapi.PodSandboxConfig)
		code          codes.Code
		says          []string
	}{
		{name: "unknown runtime handler", handler: "gvisor", code: codes.InvalidArgument, says: []string{"runtime_handler", `"gvisor"`, `"other"`}},
		{name: "no metadata", mod: func(c *criapi.PodSandboxConfig) { c.Metadata = nil }, code: codes.InvalidArgument, says: []string{"metadata"}},
		{name: "empty name", mod: func(c *criapi.PodSandboxConfig) { c.Metadata.Name = "" }, code: codes.InvalidArgument, says: []string{"metadata.name", "empty"}},
		{name: "uid that climbs", mod: func(c *criapi.PodSandboxConfig) { c.Metadata.Uid = "../../etc" }, code: codes.InvalidArgument, says: []string{"metadata.uid"}},
		{name: "cgroup parent that climbs", mod: func(c *criapi.PodSandboxConfig) { c.Linux.CgroupParent = "/a/../../b" }, code: codes.InvalidArgument, says: []string{"linux.cgroup_parent", ".."}},
		{name: "relative log directory", mod: func(c *criapi.PodSandboxConfig) { c.LogDirectory = "var/log" }, code: codes.InvalidArgument, says: []string{"log_directory", "relative"}},
		{name: "sysctl of the node", mod: func(c *criapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"kernel.panic": "1"} }, code: codes.InvalidArgument, says: []string{"kernel.panic"}},
		{name: "user namespace without a range", mod: func(c *criapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD}
		}, code: codes.InvalidArgument, says: []string{"userns_options.uids"}},
		{name: "host port out of range", mod: func(c *criapi.PodSandboxConfig) {
			c.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 70000}}
		}, code: codes.InvalidArgument, says: []string{"host", "70000"}},
		{name: "limit that is no number", mod: func(c *criapi.PodSandboxConfig) {
			c.Annotations = map[string]string{"kubernetes.io/egress-bandwidth": "fast"}
		}, code: codes.InvalidArgument, says: []string{"annotation kubernetes.io/egress-bandwidth", `"fast"`}},
		{name: "name server that is two lines", mod: func(c *criapi.PodSandboxConfig) {
			c.DnsConfig = &criapi.DNSConfig{Servers: []string{"10.0.0.1\nnameserver 10.6.6.6"}}
		}, code: codes.InvalidArgument, says: []string{"dns_config.servers[0]"}},
		{name: "annotations that no record holds", mod: func(c *criapi.PodSandboxConfig) {
			c.Annotations = map[string]string{"a": strings.Repeat("x", 6<<20)}
		}, code: codes.InvalidArgument, says: []string{"too large", "bytes are more than"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			n.unchanged(func() {
				config := podConfig("bad")
				if c.mod != nil {
					c.mod(config)
				}
				_, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: config, RuntimeHandler: c.handler})
				mustFail(t, err, c.code, c.says...)
				n.mustList(0, 0)
			})
		})
	}
	t.Run("no config", func(t *testing.T) {
		_, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{})
		mustFail(t, err, codes.InvalidArgument, "metadata")
	})
	t.Run("host port that is taken", func(t *testing.T) {
		n := &node{n.Daemon, t}
		port := func(c *criapi.PodSandboxConfig) {
			c.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 18090}}
		}
		n.runPod("holder", port)
		n.unchanged(func() {
			_, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: podConfig("second", port)})
			mustFail(t, err, codes.FailedPrecondition, "18090")
			n.mustList(1, 0)
		})
		n.removeAll()
	})
}

// mount adds one.
func mount(host, inside string, mods ...func(*criapi.Mount)) func(*criapi.ContainerConfig) {
	m := &criapi.Mount{HostPath: host, ContainerPath: inside}
	for _, mod := range mods {
		mod(m)
	}
	return func(c *criapi.ContainerConfig) { c.Mounts = append(c.Mounts, m) }
}

func localhostSeccomp(path string) func(*criapi.ContainerConfig) {
	return func(c *criapi.ContainerConfig) {
		c.Linux.SecurityContext.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: path}
	}
}

func TestContainerWithBadInput(t *testing.T) {
	n := start(t)
	fifo := filepath.Join(t.TempDir(), "profile.json")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := n.runPod("bad")
	p.run("good", "", idle)
	for _, c := range []struct {
		name string
		mod  func(*criapi.ContainerConfig)
		code codes.Code
		says []string
	}{
		{"missing mount source", mount("/no/such/source", "/data"), codes.InvalidArgument, []string{"mounts[0].host_path", `"/no/such/source"`, "does not exist"}},
		{"relative host path", mount("etc", "/data"), codes.InvalidArgument, []string{"mounts[0].host_path", `"etc" is relative`}},
		{"host path that climbs", mount("/tmp/../etc", "/data"), codes.InvalidArgument, []string{"mounts[0].host_path", ".."}},
		{"relative container path", mount("/etc", "data"), codes.InvalidArgument, []string{"mounts[0].container_path", `"data" is relative`}},
		{"mount over the root", mount("/etc", "/"), codes.InvalidArgument, []string{"mounts[0].container_path"}},
		{"no metadata", func(c *criapi.ContainerConfig) { c.Metadata = nil }, codes.InvalidArgument, []string{"metadata.name"}},
		{"empty name", func(c *criapi.ContainerConfig) { c.Metadata.Name = "" }, codes.InvalidArgument, []string{"metadata.name"}},
		{"name that climbs", func(c *criapi.ContainerConfig) { c.Metadata.Name = "../../x" }, codes.InvalidArgument, []string{"metadata.name"}},
		{"log path that climbs", func(c *criapi.ContainerConfig) { c.LogPath = "../../../tmp/x.log" }, codes.InvalidArgument, []string{"log_path", ".."}},
		{"missing image", func(c *criapi.ContainerConfig) { c.Image = &criapi.ImageSpec{Image: "localhost/nobody:1"} }, codes.NotFound, []string{"config.image.image", `"localhost/nobody:1"`, "pull"}},
		{"no image", func(c *criapi.ContainerConfig) { c.Image = nil }, codes.InvalidArgument, []string{"config.image.image"}},
		{"relative working directory", func(c *criapi.ContainerConfig) { c.WorkingDir = "tmp" }, codes.InvalidArgument, []string{"working_dir"}},
		{"unknown user", func(c *criapi.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "nobody-knows" }, codes.InvalidArgument, []string{"run_as_username", `"nobody-knows"`}},
		{"unknown capability", func(c *criapi.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &criapi.Capability{AddCapabilities: []string{"FLY"}}
		}, codes.InvalidArgument, []string{"capabilities", "FLY"}},
		{"missing device", func(c *criapi.ContainerConfig) {
			c.Devices = []*criapi.Device{{HostPath: "/dev/no-such-device", ContainerPath: "/dev/x", Permissions: "rw"}}
		}, codes.InvalidArgument, []string{"devices[0].host_path", "/dev/no-such-device"}},
		{"missing seccomp profile", localhostSeccomp("/no/such/profile.json"), codes.InvalidArgument, []string{"seccomp.localhost_ref", "/no/such/profile.json"}},
		{"seccomp profile that is a FIFO", localhostSeccomp(fifo), codes.InvalidArgument, []string{"seccomp.localhost_ref", fifo, "not a regular file"}},
		{"seccomp profile that is a device", localhostSeccomp("/dev/null"), codes.InvalidArgument, []string{"seccomp.localhost_ref", "/dev/null is not a regular file"}},
		{"seccomp profile that is a directory", localhostSeccomp("/etc"), codes.InvalidArgument, []string{"seccomp.localhost_ref", "/etc is not a regular file"}},
		{"all files as devices", func(c *criapi.ContainerConfig) {
			c.Devices = []*criapi.Device{{HostPath: "/", ContainerPath: "/dev/all", Permissions: "rw"}}
		}, codes.InvalidArgument, []string{"devices: list /: more than 32768 files"}},
		{"host network in a pod of its own", func(c *criapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
		}, codes.InvalidArgument, []string{"namespace_options.network"}},
		{"privileged in a pod that is not", func(c *criapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = true }, codes.InvalidArgument, []string{"privileged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			q := &pod{n: n, id: p.id, config: p.config}
			n.unchanged(func() {
				_, err := q.tryCreate(containerConfig("bad", "true", c.mod))
				mustFail(t, err, c.code, c.says...)
				n.mustList(1, 1)
			})
		})
	}
	t.Run("no config", func(t *testing.T) {
		_, err := n.Runtime.CreateContainer(n.ctx(), &criapi.CreateContainerRequest{PodSandboxId: p.id})
		mustFail(t, err, codes.InvalidArgument, "metadata")
	})
	t.Run("unknown pod", func(t *testing.T) {
		_, err := n.Runtime.CreateContainer(n.ctx(), &criapi.CreateContainerRequest{PodSandboxId: "nobody", Config: containerConfig("bad", "true"), SandboxConfig: p.config})
		mustFail(t, err, codes.NotFound, "nobody")
	})
}

// TestProgramThatCannotRun: the error names the file, and the container ends as kubelet expects of a failed start.
func TestProgramThatCannotRun(t *testing.T) {
	n := start(t)
	p := n.runPod("start")
	ctr := p.run("good", "", idle)
	for _, c := range []struct {
		name    string
		command []string
		mod     func(*criapi.ContainerConfig)
		says    []string
	}{
		{"missing, by path", []string{"/bin/nope"}, nil, []string{"op ", "exec /bin/nope: no such file or directory"}},
		{"missing, by name", []string{"nope"}, nil, []string{"op ", "exec nope", "no such file or directory"}},
		{"for another architecture", []string{"/bin/alien"}, nil, []string{"exec /bin/alien: exec format error", "architecture"}},
		{"a script without a first line", []string{"/bin/nobang"}, nil, []string{"exec /bin/nobang", "#!"}},
		{"not executable", []string{"/bin/noexec"}, nil, []string{"exec /bin/noexec: permission denied"}},
		{"without its interpreter", []string{"/bin/lost"}, nil, []string{"exec /bin/lost: no such file or directory", "interpreter"}},
		{"a directory", []string{"/bin"}, nil, []string{"exec /bin: permission denied"}},
		{"with a working directory that is a file", []string{"/bin/true"}, func(c *criapi.ContainerConfig) { c.WorkingDir = "/etc/passwd" }, []string{"/etc/passwd", "not a directory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			q := &pod{n: n, id: p.id, config: p.config}
			n.unchanged(func() {
				bad := q.create("bad", "", func(cc *criapi.ContainerConfig) {
					cc.Command = c.command
					if c.mod != nil {
						c.mod(cc)
					}
				})
				defer bad.remove()
				err := bad.start()
				mustFail(t, err, codes.Unknown, append(c.says, "start container "+bad.id[:12])...)
				st := bad.status()
				if st.State != criapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 128 || st.Reason != "StartError" || st.Message == "" || st.FinishedAt == 0 {
					t.Errorf("status after the failed start: %v", st)
				}
				mustFail(t, bad.start(), codes.FailedPrecondition, "exited")
			})
		})
	}
	t.Run("in an exec", func(t *testing.T) {
		n := &node{n.Daemon, t}
		n.unchanged(func() {
			_, err := n.Runtime.ExecSync(n.ctx(), &criapi.ExecSyncRequest{ContainerId: ctr.id, Cmd: []string{"/bin/nope"}, Timeout: 10})
			mustFail(t, err, codes.Unknown, "exec in container", "exec /bin/nope: no such file or directory")
			_, err = n.Runtime.ExecSync(n.ctx(), &criapi.ExecSyncRequest{ContainerId: ctr.id, Timeout: 10})
			mustFail(t, err, codes.InvalidArgument, "exec: cmd: is empty")
			_, err = n.Runtime.ExecSync(n.ctx(), &criapi.ExecSyncRequest{ContainerId: ctr.id, Cmd: []string{"true"}, Timeout: -1})
			mustFail(t, err, codes.InvalidArgument, "timeout")
		})
	})
}
