package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// pluginDirs are where the two versions of the CNI plugins are: Debian's 1.1.1,
// and 1.9.1 built from test/cni.
func pluginDirs(t *testing.T) map[string]string {
	t.Helper()
	for _, plugin := range []string{"bridge", "portmap", "bandwidth", "host-local"} {
		if _, err := os.Stat("/usr/lib/cni/" + plugin); err != nil {
			t.Fatal("needs CNI plugins: apt-get install containernetworking-plugins iptables")
		}
	}
	built := t.TempDir()
	build := exec.Command("go", "build", "-C", "../test/cni", "-o", built+"/", "tool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build CNI plugins (their modules are fetched by: go -C test/cni mod download): %v\n%s", err, out)
	}
	return map[string]string{"1.1.1": "/usr/lib/cni", "1.9.1": built}
}

// conflist is a network with every capability that these plugins know. 1.9.1 is
// to use nftables, which 1.1.1 has never heard of.
func conflist(dir, version string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[
		{"type":"bridge","bridge":"cni-test0","isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables","hairpinMode":true,
		 "capabilities":{"ipRanges":true,"dns":true},
		 "ipam":{"type":"host-local","dataDir":%q,"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}},
		{"type":"portmap","capabilities":{"portMappings":true},"snat":true,"backend":"nftables"}]}`, version, "test-"+version, filepath.Join(dir, "ipam"))
}

func TestPlugins(t *testing.T) {
	needRoot(t)
	for version, dir := range pluginDirs(t) {
		t.Run(version, func(t *testing.T) {
			testPlugins(t, dir, map[string]string{"1.1.1": "1.0.0", "1.9.1": "1.1.0"}[version])
		})
	}
}

func testPlugins(t *testing.T, bin, cniVersion string) {
	dir := host(t)
	away := outside(t)
	shell(t, "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	netd := filepath.Join(dir, "net.d")
	file := write(t, netd, "10-test.conflist", conflist(dir, cniVersion), 0o644)
	cni := func(c *Config) { c.Mode, c.BinDirs = ModeCNI, []string{bin} }
	n := network(t, dir, cni)
	t.Cleanup(func() {
		if l, err := netlink.LinkByName("cni-test0"); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	if err := n.SetPodCIDR("10.22.0.0/24,fd00:22::/64"); err != nil {
		t.Fatal(err)
	}
	if s := n.Status(ctx); !s.Ready || s.Mode != ModeCNI {
		t.Fatalf("status %+v", s)
	}
	a := pluginPod(t, n)
	if d := cmp.Diff([]string{"10.22.0.2", "fd00:22::2"}, a.att.IPs); d != "" || a.att.Mode != ModeCNI || a.att.Network != "test-"+cniVersion {
		t.Errorf("attachment %+v: %s", a.att, d)
	}
	serve(t, a.ns, "tcp", ":80", "a")
	serve(t, a.ns, "udp", ":53", "a")
	serve(t, away, "tcp", ":82", "away")
	want(t, "host to pod", ask(t, "", "tcp", a.ip()+":80"), "a ")
	// Unlike ours, their bridge is under duplicate address detection for two seconds.
	for end := now().Add(5e9); ask(t, away, "tcp", "["+hostIP6+"]:8088") == "" && now().Before(end); {
		pause()
	}
	for _, network := range []string{"tcp", "udp"} {
		want(t, network+" host port from outside", ask(t, away, network, hostIP+":8088"), "a ")
		want(t, network+" host port from outside, IPv6", ask(t, away, network, "["+hostIP6+"]:8088"), "a ")
		want(t, network+" host port on 127.0.0.1", ask(t, "", network, "127.0.0.1:8088"), "a ")
		want(t, network+" host port from the pod itself", ask(t, a.ns, network, hostIP+":8088"), "a ")
	}
	want(t, "pod to outside", ask(t, a.ns, "tcp", outsideIP+":82"), "away "+hostIP)
	want(t, "pod to outside, IPv6", ask(t, a.ns, "tcp", "["+outsideIP6+"]:82"), "away "+hostIP6)
	// portmap 1.1.1 looks for its IPv4 rules among those of IPv6.
	if err := n.Check(ctx, a.att); err != nil && (cniVersion == "1.1.0" || !strings.Contains(err.Error(), "portmap CHECK: could not check ipv6 dnat")) {
		t.Error(err)
	}
	if err := n.Attach(ctx, a.att); err != nil { // retried: DEL, ADD
		t.Fatal(err)
	}
	want(t, "after the second attach", ask(t, "", "tcp", "127.0.0.1:8088"), "a ")
	forgottenPod(t, n, a)

	// The conflist is gone, libcni's cache is gone, the namespace is gone, the
	// daemon is new: the record alone must do.
	record, err := json.Marshal(a.att)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(file), os.RemoveAll(filepath.Join(dir, "results"))); err != nil {
		t.Fatal(err)
	}
	dropNS(t, a.ns)
	n = network(t, dir, cni)
	if s := n.Status(ctx); s.Ready || !strings.Contains(s.Message, netd) {
		t.Errorf("status without conflist %+v, want not ready naming %s", s, netd)
	}
	var att Attachment
	if err := json.Unmarshal(record, &att); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.Detach(ctx, &att); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "host port after detach", ask(t, "", "tcp", "127.0.0.1:8088"), "")
	noHostLocalLeases(t, dir)
}

// pluginPod has what plugins of both versions can do. Its limit is above what the
// test sends; 1.1.1 panics on CHECK of a pod without one.
func pluginPod(t *testing.T, n *Network) pod {
	t.Helper()
	ns := newNS(t, "a")
	att, err := n.Prepare(Request{
		PodID: "a", NetnsPath: ns, Annotations: map[string]string{annotationIngress: "1G", annotationEgress: "1G"},
		Ports: []PortMapping{{ContainerPort: 80, HostPort: 8088}, {Protocol: "UDP", ContainerPort: 53, HostPort: 8088}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Attach(ctx, att); err != nil {
		t.Fatal(err)
	}
	return pod{ns, att}
}

// forgottenPod goes as one that a crashed daemon did not record: by GC, which
// leaves the other alone.
func forgottenPod(t *testing.T, n *Network, other pod) {
	t.Helper()
	ns := newNS(t, "b")
	att, err := n.Prepare(Request{PodID: "b", NetnsPath: ns, Annotations: map[string]string{annotationEgress: "16M"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Attach(ctx, att); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(ctx, att); err != nil {
		t.Error(err)
	}
	shell(t, "tc qdisc show | grep -q 'tbf.*rate 16Mbit'")
	lease := filepath.Join(n.cfg.StateDir, "ipam", att.Network, att.IPs[0])
	if _, err := os.Stat(lease); err != nil {
		t.Error(err)
	}
	dropNS(t, ns)
	if err := n.GC(ctx, []*Attachment{other.att}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(lease); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lease of the forgotten pod is left: %v", err)
	}
	want(t, "the other pod after GC", ask(t, "", "tcp", "127.0.0.1:8088"), "a ")
}

func noHostLocalLeases(t *testing.T, dir string) {
	t.Helper()
	for _, glob := range []string{"10.*", "fd00*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, "ipam", "test-*", glob)); len(left) > 0 {
			t.Errorf("host-local leases left: %v", left)
		}
	}
}
