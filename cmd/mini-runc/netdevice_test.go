package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ip runs iproute2 in our own network namespace, see TestMain.
func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// ipInside runs it in the network namespace of the container.
func (b *bundleDir) ipInside(args string) string {
	b.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--target", itoa(b.pid("x")), "--net", "ip"}, strings.Fields(args)...)...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestNetDevices: devices come under their new names, up, with what they had; addresses that run out or that belong to
// the link stay away, and so does a device that was not asked for.
func TestNetDevices(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	for _, name := range []string{"mr0", "mr1", "mr2"} {
		ip(t, "link add "+name+" type veth peer name "+name+"p")
		defer func() { _ = exec.Command("ip", "link", "del", name+"p").Run() }()
	}
	ip(t, "link set mr0 mtu 1400 address 02:00:00:00:00:07")
	ip(t, "addr add 10.7.0.2/24 brd 10.7.0.255 dev mr0")
	ip(t, "addr add 10.8.0.2 peer 10.8.0.1 dev mr0")
	ip(t, "addr add 10.9.0.2/24 dev mr0 valid_lft 1000 preferred_lft 1000")
	ip(t, "addr add 169.254.7.7/16 scope link dev mr0")
	ip(t, "link set mr0 up")
	ip(t, "link set mr0p up")
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		ip(t, "addr add fd00:7::2/64 nodad dev mr0")
	}
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"mr0": {Name: "eth0"}, "mr1": {Name: "net%d"}, "mr2": {}}
	b.write()
	b.ok("run", "-d", "x")
	defer b.ok("delete", "-f", "x")

	link := b.ipInside("-o link show dev eth0")
	for _, word := range []string{"mtu 1400", "02:00:00:00:00:07", "UP"} {
		if !strings.Contains(link, word) {
			t.Errorf("eth0 lacks %q: %s", word, link)
		}
	}
	addresses := b.ipInside("-o addr show dev eth0 scope global")
	for _, word := range []string{"10.7.0.2/24 brd 10.7.0.255", "10.8.0.2 peer 10.8.0.1/32"} {
		if !strings.Contains(addresses, word) {
			t.Errorf("eth0 lacks %q: %s", word, addresses)
		}
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil && !strings.Contains(addresses, "fd00:7::2/64") {
		t.Errorf("eth0 lacks its IPv6 address: %s", addresses)
	}
	if all := b.ipInside("-o addr show"); strings.Contains(all, "10.9.0.2") || strings.Contains(all, "169.254.7.7") {
		t.Errorf("addresses that nobody keeps: %s", all)
	}
	b.ipInside("link show dev net0")
	b.ipInside("link show dev mr2")
	if here := ip(t, "-o link show"); strings.Contains(here, "mr0:") || strings.Contains(here, "mr0@") || strings.Contains(here, "mr1@") {
		t.Errorf("devices are here still: %s", here)
	}
}

// TestNetDeviceErrors: what cannot be moved is named, and stays.
func TestNetDeviceErrors(t *testing.T) {
	for _, tc := range []struct{ name, device, as, words string }{
		{"missing", "nope0", "", "net_device nope0: no such device"},
		{"not to be moved", "lo", "lo1", "net_device lo: invalid argument"},
		{"name is taken", "mr0", "lo", "net_device mr0: the container's network namespace has a device lo already: file exists"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, "true")
			ip(t, "link add mr0 type veth peer name mr0p")
			defer ip(t, "link del mr0")
			b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{tc.device: {Name: tc.as}}
			b.write()
			b.fails(tc.words, "run", "x")
			b.nothingLeft()
		})
	}
}

// TestNetDeviceOfUserNamespace: the container's root owns it there.
func TestNetDeviceOfUserNamespace(t *testing.T) {
	b := newBundle(t, "exec busybox sleep 1000")
	ip(t, "link add mr0 type veth peer name mr0p")
	defer func() { _ = exec.Command("ip", "link", "del", "mr0p").Run() }()
	ip(t, "addr add 10.7.0.2/24 dev mr0")
	withUserNamespace(b.spec)
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"mr0": {}}
	b.write()
	b.ok("run", "-d", "x")
	defer b.ok("delete", "-f", "x")
	if out := b.ipInside("-o addr show dev mr0"); !strings.Contains(out, "10.7.0.2/24") {
		t.Errorf("%s", out)
	}
}
