package netns

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
		{"type":"fake","capabilities":{"portMappings":true,"bandwidth":true,"dns":true,"ipRanges":true,"cgroupPath":true,"io.kubernetes.cri.pod-annotations":true}}]}`, 0o644)
	return func(c *Config) { c.Mode, c.BinDirs = ModeCNI, []string{filepath.Join(dir, "bin")} }
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
	if err := n.SetPodCIDR("10.1.0.0/24,fd00::/64"); err != nil {
		t.Fatal(err)
	}
	att, err := n.Prepare(Request{
		PodID: "a", Namespace: "ns", Name: "pod", UID: "u", NetnsPath: "/proc/self/ns/net",
		Ports: []PortMapping{{Protocol: "UDP", ContainerPort: 53, HostPort: 5353, HostIP: "127.0.0.1"}, {ContainerPort: 80}},
		DNS:   DNS{Servers: []string{"10.0.0.10"}, Searches: []string{"svc"}, Options: []string{"ndots:5"}},
		Annotations: map[string]string{
			"kubernetes.io/ingress-bandwidth": "10M", "k8s.v1.cni.cncf.io/networks": "storage",
		},
		CgroupParent: "/kubepods/pod1",
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
		"ipRanges":     []any{[]any{map[string]any{"subnet": "10.1.0.0/24"}}, []any{map[string]any{"subnet": "fd00::/64"}}},
		"cgroupPath":   "/kubepods/pod1",
		"io.kubernetes.cri.pod-annotations": map[string]any{
			"kubernetes.io/ingress-bandwidth": "10M", "k8s.v1.cni.cncf.io/networks": "storage",
		},
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

// STATUS is asked of networks of CNI 1.1, and what the plugin says is the node's condition.
func TestStatusVerb(t *testing.T) {
	dir := t.TempDir()
	answer := func(body string) Status {
		t.Helper()
		change := script(t, dir, `[ "$CNI_COMMAND" = STATUS ] || exit 9
`+body)
		write(t, filepath.Join(dir, "net.d"), "10.conflist", `{"cniVersion":"1.1.0","name":"fakenet","plugins":[{"type":"fake"}]}`, 0o644)
		return network(t, dir, change).Status(ctx)
	}
	for _, tc := range []struct {
		name, body string
		ready      bool
		says       string
	}{
		{"able", "exit 0", true, ""},
		{"unable", `echo '{"cniVersion":"1.1.0","code":50,"msg":"no subnet yet"}'; exit 1`, false, "cni plugin fake STATUS: no subnet yet (code 50)"},
		{"limited", `echo '{"cniVersion":"1.1.0","code":51,"msg":"no way to other nodes"}'; exit 1`, true, "no way to other nodes"},
	} {
		if s := answer(tc.body); s.Ready != tc.ready || !strings.Contains(s.Message, tc.says) || tc.says == "" && s.Message != "" {
			t.Errorf("%s: %+v", tc.name, s)
		}
	}
}

// GC is asked of networks of CNI 1.1, with what is valid; of others, DEL is called for what is not.
func TestGCVerb(t *testing.T) {
	for _, tc := range []struct {
		version string
		want    []string
	}{{"1.1.0", []string{"ADD a", "ADD b", "DEL a", "GC "}}, {"1.0.0", []string{"ADD a", "ADD b", "DEL a"}}} {
		dir := t.TempDir()
		change := script(t, dir, `cat > `+dir+`/stdin.$CNI_COMMAND; echo "$CNI_COMMAND $CNI_CONTAINERID" >> `+dir+`/calls
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"`+tc.version+`","ips":[{"address":"10.2.0.2/24"}]}'; exit 0`)
		write(t, filepath.Join(dir, "net.d"), "10.conflist", `{"cniVersion":"`+tc.version+`","name":"fakenet","plugins":[{"type":"fake"}]}`, 0o644)
		n := network(t, dir, change)
		var keep []*Attachment
		for _, id := range []string{"a", "b"} {
			att, err := n.Prepare(Request{PodID: id, NetnsPath: "/proc/self/ns/net"})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Attach(ctx, att); err != nil {
				t.Fatal(err)
			}
			keep = []*Attachment{att}
		}
		if err := network(t, dir, change).GC(ctx, keep); err != nil {
			t.Fatal(err)
		}
		calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
		if d := cmp.Diff(tc.want, strings.Split(strings.TrimSuffix(string(calls), "\n"), "\n")); d != "" {
			t.Errorf("%s: calls %s", tc.version, d)
		}
		if tc.version != "1.1.0" {
			continue
		}
		var stdin struct {
			Valid []map[string]string `json:"cni.dev/valid-attachments"`
		}
		data, _ := os.ReadFile(filepath.Join(dir, "stdin.GC"))
		if err := json.Unmarshal(data, &stdin); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]map[string]string{{"containerID": "b", "ifname": "eth0"}}, stdin.Valid); d != "" {
			t.Errorf("valid attachments: %s", d)
		}
	}
}
