package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// write puts a file into dir, making dir.
func write(t testing.TB, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// script is a conflist with one plugin, a shell script.
func script(t testing.TB, dir, body string) (change func(*Config)) {
	t.Helper()
	write(t, filepath.Join(dir, "bin"), "fake", "#!/bin/sh\n"+body, 0o755)
	write(t, filepath.Join(dir, "net.d"), "10.conflist", `{"cniVersion":"1.0.0","name":"fakenet","plugins":[
		{"type":"fake","capabilities":{"portMappings":true,"bandwidth":true,"dns":true,"ipRanges":true}}]}`, 0o644)
	return func(c *Config) { c.Mode, c.BinDirs = ModeCNI, []string{filepath.Join(dir, "bin")} }
}

func TestDebianPlugins(t *testing.T) {
	for _, plugin := range []string{"bridge", "portmap", "host-local"} {
		if _, err := os.Stat("/usr/lib/cni/" + plugin); err != nil {
			t.Skip("needs CNI plugins: apt-get install containernetworking-plugins iptables")
		}
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables: apt-get install iptables")
	}
	dir := host(t)
	away := outside(t)
	netd := filepath.Join(dir, "net.d")
	file := write(t, netd, "10-test.conflist", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"test","plugins":[
		{"type":"bridge","bridge":"cni-test0","isGateway":true,"ipMasq":true,"hairpinMode":true,
		 "ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.22.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
		{"type":"portmap","capabilities":{"portMappings":true},"snat":true}]}`, filepath.Join(dir, "ipam")), 0o644)
	n := network(t, dir, func(c *Config) { c.Mode = ModeCNI })
	t.Cleanup(func() {
		if l, err := netlink.LinkByName("cni-test0"); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	if s := n.Status(ctx); !s.Ready || s.Mode != ModeCNI {
		t.Fatalf("status %+v", s)
	}
	a := attach(t, n, "a", PortMapping{ContainerPort: 80, HostPort: 8088})
	if a.ip() != "10.22.0.2" || a.att.Mode != ModeCNI || a.att.Network != "test" {
		t.Errorf("attachment %+v", a.att)
	}
	serve(t, a.ns, "tcp4", ":80", "a")
	serve(t, away, "tcp4", ":82", "away")
	want(t, "host to pod", ask(t, "", "tcp", a.ip()+":80"), "a ")
	want(t, "host port from outside", ask(t, away, "tcp", hostIP+":8088"), "a ")
	want(t, "host port on 127.0.0.1", ask(t, "", "tcp", "127.0.0.1:8088"), "a ")
	want(t, "pod to outside", ask(t, a.ns, "tcp", outsideIP+":82"), "away "+hostIP)
	// Debian's portmap 1.1.1 looks for its IPv6 rules in IPv4-only pods as well.
	if err := n.Check(ctx, a.att); err != nil && !strings.Contains(err.Error(), "portmap CHECK: could not check ipv6 dnat") {
		t.Error(err)
	}
	if err := n.Attach(ctx, a.att); err != nil { // retried: DEL, ADD
		t.Fatal(err)
	}
	want(t, "after the second attach", ask(t, "", "tcp", "127.0.0.1:8088"), "a ")

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
	n = network(t, dir, func(c *Config) { c.Mode = ModeCNI })
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
	if left, _ := filepath.Glob(filepath.Join(dir, "ipam", "test", "10.*")); len(left) > 0 {
		t.Errorf("host-local leases left: %v", left)
	}
}

func TestPluginErrorNamesPluginCodeAndDetails(t *testing.T) {
	dir := t.TempDir()
	n := network(t, dir, script(t, dir, `echo '{"cniVersion":"1.0.0","code":7,"msg":"bad subnet","details":"10.0.0.0/99"}'; exit 1`))
	att, err := n.Prepare(Request{PodID: "a", NetnsPath: "/proc/self/ns/net"})
	if err != nil {
		t.Fatal(err)
	}
	err = n.Attach(ctx, att)
	var p *PluginError
	if !errors.As(err, &p) {
		t.Fatalf("error %v is no PluginError", err)
	}
	if d := cmp.Diff(PluginError{Plugin: "fake", Command: "ADD", Code: 7, Msg: "bad subnet", Details: "10.0.0.0/99"}, *p); d != "" {
		t.Error(d)
	}
	const text = `attach pod a, network "fakenet": cni plugin fake ADD: bad subnet: 10.0.0.0/99 (code 7)`
	if err.Error() != text {
		t.Errorf("error %q, want %q", err, text)
	}
	script(t, dir, `echo "cannot open /etc/x" >&2; exit 3`)
	if err := n.Attach(ctx, att); err == nil || !strings.Contains(err.Error(), "exit status 3: cannot open /etc/x") {
		t.Errorf("plugin without an error result: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "bin", "fake")); err != nil {
		t.Fatal(err)
	}
	if err := n.Attach(ctx, att); err == nil || !strings.Contains(err.Error(), "cni plugin fake is in none of "+dir) {
		t.Errorf("missing plugin: %v", err)
	}
	if s := n.Status(ctx); s.Ready || !strings.Contains(s.Message, "cni plugin fake is in none of") {
		t.Errorf("status with missing plugin: %+v", s)
	}
}

func TestPluginArguments(t *testing.T) {
	dir := t.TempDir()
	n := network(t, dir, script(t, dir, `cat > `+dir+`/stdin.$CNI_COMMAND; env | grep ^CNI_ | sort > `+dir+`/env.$CNI_COMMAND
echo '{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"x"},{"name":"net1","sandbox":"x"}],
"ips":[{"interface":2,"address":"10.2.0.2/24"},{"interface":1,"address":"10.1.0.2/24"},{"interface":1,"address":"fd00::2/64"}]}'`))
	if err := n.SetPodCIDR("10.1.0.0/24"); err != nil {
		t.Fatal(err)
	}
	att, err := n.Prepare(Request{
		PodID: "a", Namespace: "ns", Name: "pod", UID: "u", NetnsPath: "/proc/self/ns/net",
		Ports:       []PortMapping{{Protocol: "UDP", ContainerPort: 53, HostPort: 5353, HostIP: "127.0.0.1"}, {ContainerPort: 80}},
		DNS:         DNS{Servers: []string{"10.0.0.10"}, Searches: []string{"svc"}, Options: []string{"ndots:5"}},
		Annotations: map[string]string{"kubernetes.io/ingress-bandwidth": "10M"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Attach(ctx, att); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"10.1.0.2", "fd00::2", "10.2.0.2"}, att.IPs); d != "" {
		t.Errorf("addresses, eth0's first: %s", d)
	}
	env, _ := os.ReadFile(filepath.Join(dir, "env.ADD"))
	wantEnv := []string{
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=a;K8S_POD_UID=u",
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=a", "CNI_IFNAME=eth0", "CNI_NETNS=/proc/self/ns/net", "CNI_PATH=" + filepath.Join(dir, "bin"),
	}
	if d := cmp.Diff(wantEnv, strings.Split(strings.TrimSpace(string(env)), "\n")); d != "" {
		t.Error(d)
	}
	wantCaps := map[string]any{
		"portMappings": []any{map[string]any{"hostPort": 5353.0, "containerPort": 53.0, "protocol": "udp", "hostIP": "127.0.0.1"}},
		"bandwidth":    map[string]any{"ingressRate": 1e7, "ingressBurst": 2147483647.0},
		"dns":          map[string]any{"servers": []any{"10.0.0.10"}, "searches": []any{"svc"}, "options": []any{"ndots:5"}},
		"ipRanges":     []any{[]any{map[string]any{"subnet": "10.1.0.0/24"}}},
	}
	check := func(command string) {
		t.Helper()
		var stdin struct {
			RuntimeConfig map[string]any
			PrevResult    map[string]any
		}
		data, _ := os.ReadFile(filepath.Join(dir, "stdin."+command))
		if err := json.Unmarshal(data, &stdin); err != nil {
			t.Fatalf("stdin of %s: %v", command, err)
		}
		if d := cmp.Diff(wantCaps, stdin.RuntimeConfig); d != "" {
			t.Errorf("runtimeConfig of %s: %s", command, d)
		}
		if command != "ADD" && stdin.PrevResult == nil {
			t.Errorf("%s got no prevResult", command)
		}
	}
	check("ADD")
	if err := os.RemoveAll(filepath.Join(dir, "results")); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(ctx, att); err != nil {
		t.Error(err)
	}
	check("CHECK")
	if err := n.Detach(ctx, att); err != nil {
		t.Error(err)
	}
	check("DEL")
}

func TestHangingPluginEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	// The child keeps the pipe open; killing the shell alone would not do.
	n := network(t, dir, script(t, dir, "sleep 30 & sleep 30"))
	att, err := n.Prepare(Request{PodID: "a", NetnsPath: "/proc/self/ns/net"})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err = n.Attach(short, att)
	if err == nil || !strings.Contains(err.Error(), "cni plugin fake ADD: killed: context deadline exceeded") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestModeAuto(t *testing.T) {
	dir := t.TempDir()
	auto := func(c *Config) { c.Mode = ModeAuto }
	mode := func(n *Network) string {
		t.Helper()
		att, err := n.Prepare(Request{PodID: "a", NetnsPath: "/x"})
		if err != nil {
			return err.Error()
		}
		return att.Mode
	}
	n := network(t, dir, auto)
	if got := mode(n); got != ModeBuiltin {
		t.Errorf("no directory: %s", got)
	}
	write(t, filepath.Join(dir, "net.d"), "00-bad.conflist", "{", 0o644)
	if got := mode(n); got != ModeBuiltin {
		t.Errorf("an invalid file only: %s", got)
	}
	file := write(t, filepath.Join(dir, "net.d"), "10-good.conf", `{"cniVersion":"0.3.1","name":"good","type":"bridge"}`, 0o644)
	if got := mode(n); got != ModeCNI {
		t.Errorf("a valid file: %s", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Network{n, network(t, dir, auto)} {
		if got := mode(n); !strings.Contains(got, "no valid network configuration in "+filepath.Join(dir, "net.d")) || !strings.Contains(got, "00-bad.conflist") {
			t.Errorf("the file is gone again: %s", got)
		}
		if s := n.Status(ctx); s.Ready || s.Reason != ReasonInvalidConfig {
			t.Errorf("status %+v", s)
		}
	}
	if got := mode(network(t, dir, nil)); got != ModeBuiltin {
		t.Errorf("explicitly built-in: %s", got)
	}
}

func TestFindConf(t *testing.T) {
	for _, tc := range []struct {
		name    string
		files   map[string]string
		network string
		types   []string
		err     string
	}{
		{name: "lexically first", files: map[string]string{
			"20.conflist": `{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"y"}]}`,
			"10.json":     `{"cniVersion":"1.0.0","name":"a","type":"x"}`,
			"05.txt":      `{"name":"no","type":"z"}`,
		}, network: "a", types: []string{"x"}},
		{name: "invalid ones are passed over", files: map[string]string{
			"10.conflist": `{"cniVersion":"1.0.0","name":"a","plugins":[]}`,
			"11.conf":     `{"cniVersion":"1.0.0","type":"nameless"}`,
			"12.conflist": `{"cniVersion":"1.0.0","plugins":[{"type":"nameless"}]}`,
			"20.conflist": `{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"y"},{"type":"z"}]}`,
		}, network: "b", types: []string{"y", "z"}},
		{name: "plugins from the network's directory", files: map[string]string{
			"10.conflist":  `{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"x"}]}`,
			"a/extra.conf": `{"type":"extra"}`,
		}, network: "a", types: []string{"x", "extra"}},
		{name: "empty", err: "no network configuration in"},
		{name: "only invalid", files: map[string]string{"10.conf": "nope"}, err: "10.conf: error parsing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for f, content := range tc.files {
				write(t, filepath.Join(dir, filepath.Dir(f)), filepath.Base(f), content, 0o644)
			}
			list, _, err := findConf(dir)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// What is recorded must be complete without the directory.
			n := network(t, t.TempDir(), nil)
			c, err := n.open(&Attachment{Mode: ModeCNI, Conflist: list.Bytes})
			if err != nil {
				t.Fatal(err)
			}
			var types []string
			for _, p := range c.list.Plugins {
				types = append(types, p.Network.Type)
			}
			if d := cmp.Diff(tc.types, types); d != "" || c.list.Name != tc.network {
				t.Errorf("network %q, plugins %s", c.list.Name, d)
			}
		})
	}
}

func TestPrepareRefuses(t *testing.T) {
	n := network(t, t.TempDir(), nil)
	for _, tc := range []struct {
		name  string
		r     Request
		parts string
	}{
		{"no pod id", Request{NetnsPath: "/x"}, "pod id"},
		{"protocol", Request{Ports: []PortMapping{{Protocol: "ICMP", HostPort: 1, ContainerPort: 1}}}, `port_mappings[0].protocol: "ICMP"`},
		{"host port", Request{Ports: []PortMapping{{HostPort: 70000, ContainerPort: 1}}}, "port_mappings[0].host_port: 70000"},
		{"negative host port", Request{Ports: []PortMapping{{HostPort: -1, ContainerPort: 1}}}, "port_mappings[0].host_port: -1"},
		{"container port", Request{Ports: []PortMapping{{HostPort: 80}}}, "port_mappings[0].container_port: 0"},
		{"host ip", Request{Ports: []PortMapping{{HostPort: 80, ContainerPort: 80, HostIP: "localhost"}}}, `port_mappings[0].host_ip: "localhost"`},
		{"two targets", Request{Ports: []PortMapping{{HostPort: 80, ContainerPort: 80}, {HostPort: 80, ContainerPort: 81}}}, "port_mappings[1].host_port: 80/tcp leads to container ports 80 and 81"},
		{"bandwidth", Request{Annotations: map[string]string{annotationEgress: "fast"}}, `annotation kubernetes.io/egress-bandwidth: "fast"`},
	} {
		if tc.name != "no pod id" {
			tc.r.PodID, tc.r.NetnsPath = "a", "/x"
		}
		if _, err := n.Prepare(tc.r); err == nil || !strings.Contains(err.Error(), tc.parts) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.parts)
		}
	}
}

func TestParseRate(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want uint64
	}{{"10M", 1e7}, {"1k", 1000}, {"1.5G", 15e8}, {"1Mi", 1 << 20}, {"4000", 4000}, {"1e6", 1e6}, {"1P", 1e15},
		{"", 0}, {"10Q", 0}, {"0x10", 0}, {"1/2M", 0}, {"999", 0}, {"2P", 0}, {"-1M", 0}, {"1e999999999", 0}} {
		got, err := parseRate(tc.in)
		if got != tc.want || (err == nil) != (tc.want != 0) {
			t.Errorf("parseRate(%q) = %d, %v; want %d", tc.in, got, err, tc.want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cfg   Config
		parts string
	}{
		{"mode", Config{Mode: "magic"}, `network.mode: "magic"`},
		{"bridge", Config{Bridge: "a-name-that-is-too-long"}, "network.bridge"},
		{"pod cidr", Config{PodCIDR: "10.0.0.0"}, `network.pod_cidr: "10.0.0.0"`},
		{"pod cidr host bits", Config{PodCIDR: "10.0.0.1/24"}, "network.pod_cidr: pod CIDR 10.0.0.1/24 has host bits set; write 10.0.0.0/24"},
	} {
		tc.cfg.StateDir = t.TempDir()
		if _, err := New(ctx, tc.cfg); err == nil || !strings.Contains(err.Error(), tc.parts) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.parts)
		}
	}
}
