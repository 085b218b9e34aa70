package api

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// addresses are a pod's, the primary one first.
func (p *pod) addresses() []string {
	p.n.t.Helper()
	network := p.status().Network
	out := []string{network.Ip}
	for _, a := range network.AdditionalIps {
		out = append(out, a.Ip)
	}
	return out
}

// setPodCIDR is what kubelet does when the node's pod CIDR is known.
func (n *node) setPodCIDR(cidr string) error {
	_, err := n.Runtime.UpdateRuntimeConfig(n.ctx(), &criapi.UpdateRuntimeConfigRequest{
		RuntimeConfig: &criapi.RuntimeConfig{NetworkConfig: &criapi.NetworkConfig{PodCidr: cidr}},
	})
	return err
}

func TestDualStackPod(t *testing.T) {
	n := start(t)
	p := n.runPod("dual")
	ips := p.addresses()
	if len(ips) != 2 || !netip.MustParseAddr(ips[0]).Is4() || !netip.MustParseAddr(ips[1]).IsPrivate() {
		t.Fatalf("addresses %v, want an IPv4 and a unique local IPv6 one", ips)
	}
	c := p.run("main", "exec sleep 1000")
	hosts := c.exec("cat /etc/hosts")
	for _, ip := range ips {
		if !strings.Contains(hosts, ip) {
			t.Errorf("/etc/hosts lacks %s:\n%s", ip, hosts)
		}
	}
	if out := c.exec("ip -6 addr show dev eth0"); !strings.Contains(out, ips[1]) {
		t.Errorf("eth0 lacks %s:\n%s", ips[1], out)
	}
	if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	if left := p.status().Network; left.GetIp() != "" || len(left.GetAdditionalIps()) != 0 {
		t.Errorf("a stopped pod has addresses: %v", left)
	}
}

// TestUpdateRuntimeConfig: the node's pod CIDR is checked, used for new pods, and kept across a restart.
func TestUpdateRuntimeConfig(t *testing.T) {
	d, err := daemon.New(start(t).Bin, "cidr")
	if err != nil {
		t.Fatal(err)
	}
	d.Config = "[network]\nmode = \"builtin\"\nbridge = \"api-cidr\"\npod_cidr = \"10.91.0.0/24\"\nmtu = 1400\n"
	n := &node{d, t}
	before := n.Look()
	defer func() {
		if err := os.RemoveAll(d.State); err != nil {
			t.Error(err)
		}
		n.mustLookLike(before)
	}()
	if err := d.Load(filepath.Join(d.Bin, "image.tar")); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		n.removeAll()
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}()
	in := func(p *pod, cidrs ...string) {
		t.Helper()
		ips := p.addresses()
		if len(ips) != len(cidrs) {
			t.Fatalf("addresses %v, want one of each of %v", ips, cidrs)
		}
		for i, c := range cidrs {
			if !netip.MustParsePrefix(c).Contains(netip.MustParseAddr(ips[i])) {
				t.Errorf("address %s is not of %s", ips[i], c)
			}
		}
	}
	old := n.runPod("configured")
	in(old, "10.91.0.0/24")
	const v4, v6 = "10.244.7.0/24", "fd00:244:7::/64"
	if err := n.setPodCIDR(v4 + "," + v6); err != nil {
		t.Fatal(err)
	}
	in(n.runPod("new"), v4, v6)
	in(old, "10.91.0.0/24")
	if err := n.setPodCIDR(""); err != nil { // kubelet knows nothing yet: nothing changes
		t.Error(err)
	}
	mustFail(t, n.setPodCIDR("10.244.7.1/24"), codes.InvalidArgument, "network_config.pod_cidr", "10.244.7.1/24", "write 10.244.7.0/24")
	mustFail(t, n.setPodCIDR(v4+",10.244.8.0/24"), codes.InvalidArgument, "10.244.8.0/24")
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	in(n.runPod("restarted"), v4, v6)
	in(old, "10.91.0.0/24")
	c := old.run("main", "exec sleep 1000")
	if out := c.exec("cat /sys/class/net/eth0/mtu"); strings.TrimSpace(out) != "1400" {
		t.Errorf("MTU %q, want the configured 1400", out)
	}
}

// TestPodCIDRExhausted: the error names the subnet and the way out, and nothing of the pod is left.
func TestPodCIDRExhausted(t *testing.T) {
	d, err := daemon.New(start(t).Bin, "full")
	if err != nil {
		t.Fatal(err)
	}
	d.Config = fmt.Sprintf("[network]\nmode = \"builtin\"\nbridge = \"api-full\"\npod_cidr = %q\n", "10.92.0.0/30")
	n := &node{d, t}
	before := n.Look()
	defer func() {
		if err := os.RemoveAll(d.State); err != nil {
			t.Error(err)
		}
		n.mustLookLike(before)
	}()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		n.removeAll()
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}()
	n.runPod("first")
	n.unchanged(func() {
		_, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: podConfig("second")})
		mustFail(t, err, codes.ResourceExhausted, "pod CIDR 10.92.0.0/30: no free address (1 in use)", "network.pod_cidr")
	})
	n.mustList(1, 0)
}

// TestPodNetworkAsked: what the pod's config asks of the network is there: host ports of both families, one on an address
// only, limits by annotation; and it goes with the pod.
func TestPodNetworkAsked(t *testing.T) {
	n := start(t)
	p := n.runPod("asked", func(c *criapi.PodSandboxConfig) {
		c.PortMappings = []*criapi.PortMapping{
			{ContainerPort: 8080, HostPort: 18093},
			{ContainerPort: 8080, HostPort: 18094, HostIp: "127.0.0.1"},
			{ContainerPort: 8080, HostPort: 18095, HostIp: "::"},
			{ContainerPort: 8080, HostPort: 18096, Protocol: criapi.Protocol_SCTP},
		}
		c.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "16M"}
	})
	p.listen(":8080", func(c *net.TCPConn) { _, _ = io.WriteString(c, "pod") })
	reach := func(addr string) string {
		c, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err != nil {
			return ""
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		b, _ := io.ReadAll(c)
		return string(b)
	}
	prefix, err := netip.MustParseAddr(p.addresses()[1]).Prefix(64)
	if err != nil {
		t.Fatal(err)
	}
	bridge6 := "[" + prefix.Addr().Next().String() + "]" // an address of the node
	for addr, want := range map[string]string{
		"127.0.0.1:18093": "pod", bridge6 + ":18093": "pod",
		"127.0.0.1:18094": "pod", bridge6 + ":18094": "",
		"127.0.0.1:18095": "", bridge6 + ":18095": "pod",
		"127.0.0.1:18096": "", // SCTP only
	} {
		if got := reach(addr); got != want {
			t.Errorf("%s answers %q, want %q", addr, got, want)
		}
	}
	limits, err := exec.Command("tc", "qdisc", "show").CombinedOutput()
	if err != nil || !strings.Contains(string(limits), "rate 8Mbit") || !strings.Contains(string(limits), "rate 16Mbit") {
		t.Errorf("queues lack the limits, %v:\n%s", err, limits)
	}
	rules, err := exec.Command("nft", "list", "map", "inet", "cri-mini0", "hostport").CombinedOutput()
	if want := "sctp . 18096 : " + p.addresses()[0] + " . 8080"; err != nil || !strings.Contains(string(rules), want) {
		t.Errorf("map lacks %q, %v:\n%s", want, err, rules)
	}
	if _, err := n.Runtime.StopPodSandbox(n.ctx(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	if got := reach("127.0.0.1:18093"); got != "" {
		t.Errorf("a stopped pod's port answers %q", got)
	}
}
