package netns

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestHostPort(t *testing.T) {
	n := network(t, host(t), nil)
	away := outside(t)
	b := attach(t, n, "b")
	a := attach(t, n, "a",
		PortMapping{ContainerPort: 80, HostPort: 8080},
		PortMapping{ContainerPort: 80, HostPort: 8080, HostIP: "0.0.0.0"}, // the same again
		PortMapping{Protocol: "UDP", ContainerPort: 53, HostPort: 8080},
		PortMapping{ContainerPort: 80, HostPort: 9001, HostIP: "127.0.0.1"},
		PortMapping{ContainerPort: 80, HostPort: 9002, HostIP: hostIP},
		PortMapping{Protocol: "TCP", ContainerPort: 7070})
	serve(t, a.ns, "tcp4", ":80", "a")
	serve(t, a.ns, "udp4", ":53", "a")
	for _, network := range []string{"tcp", "udp"} {
		want(t, network+" from outside keeps its source", ask(t, away, network, hostIP+":8080"), "a "+outsideIP)
		want(t, network+" from host by 127.0.0.1", ask(t, "", network, "127.0.0.1:8080"), "a 10.88.0.1")
		want(t, network+" from host by 127.8.8.8", ask(t, "", network, "127.8.8.8:8080"), "a 10.88.0.1")
		want(t, network+" from host by its address", ask(t, "", network, hostIP+":8080"), "a ")
		want(t, network+" from a neighbour", ask(t, b.ns, network, hostIP+":8080"), "a 10.88.0.1")
		want(t, network+" from a neighbour by the bridge", ask(t, b.ns, network, "10.88.0.1:8080"), "a 10.88.0.1")
		want(t, network+" from itself (hairpin)", ask(t, a.ns, network, hostIP+":8080"), "a 10.88.0.1")
	}
	want(t, "host_ip 127.0.0.1 from host", ask(t, "", "tcp", "127.0.0.1:9001"), "a ")
	want(t, "host_ip 127.0.0.1 by another address", ask(t, "", "tcp", hostIP+":9001"), "")
	want(t, "host_ip 127.0.0.1 from outside", ask(t, away, "tcp", hostIP+":9001"), "")
	want(t, "host_ip from outside", ask(t, away, "tcp", hostIP+":9002"), "a "+outsideIP)
	want(t, "host_ip by 127.0.0.1", ask(t, "", "tcp", "127.0.0.1:9002"), "")
	want(t, "host_port 0", ask(t, "", "tcp", "127.0.0.1:7070"), "")

	_, err := tryAttach(t, n, "c", PortMapping{ContainerPort: 1, HostPort: 8080})
	if err == nil || !strings.Contains(err.Error(), "host port *:8080/tcp is held by pod a@eth0") {
		t.Errorf("second pod with the port: %v, want an error that names the port and the holder", err)
	}
	if files, _ := filepath.Glob(filepath.Join(n.cfg.RunDir, "leases", "c@*")); len(files) > 0 {
		t.Errorf("the refused pod has a lease: %v", files)
	}
	detach(t, n, a)
	want(t, "after detach", ask(t, "", "tcp", "127.0.0.1:8080"), "")
	d := attach(t, n, "d", PortMapping{ContainerPort: 81, HostPort: 8080}, PortMapping{Protocol: "UDP", ContainerPort: 54, HostPort: 8080})
	serve(t, d.ns, "tcp4", ":81", "d")
	serve(t, d.ns, "udp4", ":54", "d")
	want(t, "tcp port of a gone pod", ask(t, "", "tcp", "127.0.0.1:8080"), "d ")
	want(t, "udp port of a gone pod", ask(t, "", "udp", "127.0.0.1:8080"), "d ")
}

// A UDP client that never pauses must follow the port to the next pod.
func TestUDPHostPortFollowsPod(t *testing.T) {
	n := network(t, host(t), nil)
	away := outside(t)
	udp := PortMapping{Protocol: "UDP", ContainerPort: 53, HostPort: 5353}
	a := attach(t, n, "a", udp)
	serve(t, a.ns, "udp4", ":53", "a")
	var conn net.Conn
	err := in(t, away, func() (err error) {
		conn, err = net.Dial("udp", hostIP+":5353")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func() string {
		_, _ = conn.Write([]byte("?"))
		buf := make([]byte, 100)
		_ = conn.SetReadDeadline(deadline())
		k, _ := conn.Read(buf)
		return string(buf[:k])
	}
	want(t, "first pod", say(), "a ")
	detach(t, n, a)
	b := attach(t, n, "b", udp)
	serve(t, b.ns, "udp4", ":53", "b")
	want(t, "same client, next pod", say(), "b ")
}

// The same for IPv6, and a client's connections to other machines' port of that number live on.
func TestUDPFlowsOfOthersAreKept(t *testing.T) {
	n := dualStack(t)
	away := outside(t)
	serve(t, away, "udp6", ":5353", "away")
	b := attach(t, n, "b")
	dial := func(ns, addr string) (say func() string) {
		t.Helper()
		var conn net.Conn
		if err := in(t, ns, func() (err error) {
			conn, err = net.Dial("udp", addr)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return func() string {
			_, _ = conn.Write([]byte("?"))
			buf := make([]byte, 100)
			_ = conn.SetReadDeadline(deadline())
			k, _ := conn.Read(buf)
			return string(buf[:k])
		}
	}
	client := dial(away, "["+hostIP6+"]:5353")
	want(t, "before there is a pod", client(), "")
	other := dial(b.ns, "["+outsideIP6+"]:5353")
	want(t, "another machine's port", other(), "away "+hostIP6)
	before := conntracked(t, "fd00:1::2")
	for _, id := range []string{"c", "d"} {
		p := attach(t, n, id, PortMapping{Protocol: "UDP", ContainerPort: 53, HostPort: 5353})
		serve(t, p.ns, "udp6", ":53", id)
		want(t, "same client, pod "+id, client(), id+" ")
		detach(t, n, p)
	}
	if d := cmp.Diff(before, conntracked(t, "fd00:1::2")); d != "" {
		t.Errorf("the tracked connection of a pod to another machine: %s", d)
	}
	want(t, "another machine's port, later", other(), "away "+hostIP6)
}

// conntracked lists the tracked connections from an address, as what they are translated to.
func conntracked(t testing.TB, from string) (out []string) {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if f.Forward.SrcIP.String() == from {
			out = append(out, fmt.Sprint(f.Forward.DstIP, f.Forward.DstPort, f.Reverse.DstIP, f.Reverse.DstPort))
		}
	}
	return out
}
