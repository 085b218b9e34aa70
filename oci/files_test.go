package oci

import (
	"bytes"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestResolvConf(t *testing.T) {
	node := "# node\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\n nameserver\t::ffff:127.0.0.1\nsearch lan\n"
	onNode := &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{NamespaceOptions: &nsopt{Network: 2}}}
	for _, tt := range []struct {
		name string
		c    *criapi.PodSandboxConfig
		want string
	}{
		{"asked for", &criapi.PodSandboxConfig{DnsConfig: &criapi.DNSConfig{
			Servers: []string{"10.10.10.10", "fd00::1"}, Searches: []string{"google.com", "."}, Options: []string{"ndots:8"},
		}}, "search google.com .\nnameserver 10.10.10.10\nnameserver fd00::1\noptions ndots:8\n"},
		{"the node's", &criapi.PodSandboxConfig{DnsConfig: &criapi.DNSConfig{}}, "# node\nnameserver 10.0.0.2\nsearch lan\n"},
		{"the node's on its network", &criapi.PodSandboxConfig{Linux: onNode}, node},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ResolvConf(tt.c, []byte(node))
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name string
		dns  *criapi.DNSConfig
		want string
	}{
		{"server", &criapi.DNSConfig{Servers: []string{"dns.example"}}, `pod config: dns_config.servers[0]: "dns.example" is not an IP address`},
		{"search", &criapi.DNSConfig{Searches: []string{"a\nnameserver 1.1.1.1"}}, `pod config: dns_config.searches[0]: "a\nnameserver 1.1.1.1" is empty or holds a space`},
		{"option", &criapi.DNSConfig{Options: []string{"a b"}}, `pod config: dns_config.options[0]: "a b" is empty or holds a space`},
	} {
		t.Run("bad "+tt.name, func(t *testing.T) {
			_, err := ResolvConf(&criapi.PodSandboxConfig{DnsConfig: tt.dns}, nil)
			checkRejected(t, err, tt.want)
		})
	}
}

// FuzzResolvConf: no line of the result is one that dns_config or the node's
// file did not have.
func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 127.0.0.1\nsearch a b\n"), "1.1.1.1", "a.b", "ndots:5")
	f.Add([]byte("nameserver fe80::1%eth0"), "", "", "")
	f.Fuzz(func(t *testing.T, node []byte, server, search, option string) {
		c := &criapi.PodSandboxConfig{DnsConfig: &criapi.DNSConfig{
			Servers: []string{server}, Searches: []string{search}, Options: []string{option},
		}}
		if out, err := ResolvConf(c, node); err == nil && bytes.Count(out, []byte("\n")) != 3 {
			t.Errorf("%q", out)
		}
		out, err := ResolvConf(nil, node)
		if err != nil || len(out) > maxResolvConf {
			t.Errorf("%d bytes, %v", len(out), err)
		}
		for line := range bytes.Lines(out) {
			if !bytes.Contains(node, line) || isLoopbackServer(string(line)) {
				t.Errorf("line %q", line)
			}
		}
	})
}

// FuzzSysctl: whatever is accepted stays below /proc/sys and in a namespace.
func FuzzSysctl(f *testing.F) {
	for _, s := range []string{"net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/x", "kernel.sem", "net..x", "net.//.x", "fs.mqueue.a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		parts := sysctlParts(key)
		for _, p := range parts {
			if p == "" || p == "." || p == ".." || strings.Contains(p, "/") {
				t.Errorf("%q has part %q", key, p)
			}
		}
		if parts == nil {
			return
		}
		if ns, why := sysctlNamespace(parts); (ns == "") == (why == "") {
			t.Errorf("%q: namespace %q, why %q", key, ns, why)
		}
	})
}

func TestHostname(t *testing.T) {
	pod := func(host, name string) *criapi.PodSandboxConfig {
		return &criapi.PodSandboxConfig{Hostname: host, Metadata: &criapi.PodSandboxMetadata{Name: name}}
	}
	long := strings.Repeat("a", 63)
	for _, tt := range []struct {
		name string
		c    *criapi.PodSandboxConfig
		want string
	}{
		{"asked for", pod("web-0.example", "x"), "web-0.example"},
		{"the longest", pod(long, "x"), long},
		{"from the name", pod("", "NamespaceOption_PodSandbox.1"), "namespaceoption-podsandbox-1"},
		{"cut", pod("", strings.Repeat("a", 62)+"--b"), strings.Repeat("a", 62)},
		{"nothing left", pod("", "__"), "pod"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := Hostname(tt.c, "node"); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestHostsFile(t *testing.T) {
	got := string(HostsFile("web", []string{"10.88.0.2", "fd00::2"}, nil))
	if !strings.HasPrefix(got, "127.0.0.1\tlocalhost\n") || !strings.HasSuffix(got, "10.88.0.2\tweb\nfd00::2\tweb\n") {
		t.Errorf("hosts %q", got)
	}
	if got := string(HostsFile("web", nil, []byte("node's"))); got != "node's" {
		t.Errorf("hosts of the node %q", got)
	}
}

func TestCgroupPath(t *testing.T) {
	const burst = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx_y.slice"
	for _, tt := range []struct{ name, driver, parent, pod, container string }{
		{"none", "cgroupfs", "", "/cri-mini/p", "/cri-mini/p/c"},
		{"no driver", "", "", "/cri-mini/p", "/cri-mini/p/c"},
		{"cgroupfs", "cgroupfs", "/kubepods/podx/", "/kubepods/podx/p", "/kubepods/podx/c"},
		{"relative", "cgroupfs", "kubepods", "/kubepods/p", "/kubepods/c"},
		{"systemd, none", "systemd", "", "cri_mini-podp.slice", "cri_mini-podp.slice:cri-mini:c"},
		{"slice", "systemd", "kubepods-burstable-podx_y.slice", "kubepods-burstable-podx_y.slice:cri-mini:p", "kubepods-burstable-podx_y.slice:cri-mini:c"},
		{"slice and where it is", "systemd", burst, "kubepods-burstable-podx_y.slice:cri-mini:p", "kubepods-burstable-podx_y.slice:cri-mini:c"},
		{"relative to the root", "systemd", burst[1:], "kubepods-burstable-podx_y.slice:cri-mini:p", "kubepods-burstable-podx_y.slice:cri-mini:c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &criapi.PodSandboxConfig{Linux: &criapi.LinuxPodSandboxConfig{CgroupParent: tt.parent}}
			p, err1 := cgroupPath(pod, "p", "p", tt.driver)
			c, err2 := cgroupPath(pod, "p", "c", tt.driver)
			if p != tt.pod || c != tt.container || err1 != nil || err2 != nil {
				t.Errorf("pod %q, container %q, %v %v", p, c, err1, err2)
			}
		})
	}
}

func TestCgroupParentOfTheOtherDriver(t *testing.T) {
	for _, tt := range []struct{ name, driver, parent, says string }{
		{"path with systemd", "systemd", "/kubepods/burstable/podx", "does not end in .slice, and the cgroup driver is systemd: set cgroupDriver of the kubelet"},
		{"slice with cgroupfs", "cgroupfs", "kubepods-podx.slice", "is a slice of systemd, but the cgroup driver is cgroupfs: set cgroupDriver of the kubelet"},
		{"slice with no driver", "", "/kubepods.slice/kubepods-podx.slice", "but the cgroup driver is cgroupfs"},
		{"elsewhere", "systemd", "/machine.slice/kubepods-podx.slice", "which is /kubepods.slice/kubepods-podx.slice"},
		{"empty part", "systemd", "kubepods--podx.slice", "dashes is empty"},
		{"root slice", "systemd", "-.slice", "which is /"},
		{"ending alone", "systemd", ".slice", "does not end in .slice"},
		{"root", "systemd", "/", "does not end in .slice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &criapi.PodSandboxConfig{Linux: &criapi.LinuxPodSandboxConfig{CgroupParent: tt.parent}}
			_, err := cgroupPath(pod, "p", "c", tt.driver)
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), "pod config: linux.cgroup_parent: ") {
				t.Errorf("%v; want %q", err, tt.says)
			}
		})
	}
}

func TestLogPath(t *testing.T) {
	pod := &criapi.PodSandboxConfig{LogDirectory: "/var/log/pods/x"}
	if got, err := LogPath(pod, &criapi.ContainerConfig{LogPath: "c/0.log"}); got != "/var/log/pods/x/c/0.log" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := LogPath(nil, &criapi.ContainerConfig{LogPath: "c/0.log"}); got != "" || err != nil {
		t.Errorf("without a directory: %q, %v", got, err)
	}
}
