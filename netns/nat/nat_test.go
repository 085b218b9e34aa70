package nat

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
)

func mapping(proto, hostIP string, hostPort uint16, pod string) Mapping {
	m := Mapping{Protocol: proto, HostPort: hostPort, Pod: netip.MustParseAddr(pod), PodPort: 80}
	if hostIP != "" {
		m.HostIP = netip.MustParseAddr(hostIP)
	}
	return m
}

func TestConflict(t *testing.T) {
	table := New("br0")
	table.Reset(map[string][]Mapping{"a": {mapping("tcp", "", 80, "10.0.0.2"), mapping("udp", "127.0.0.1", 53, "10.0.0.2")}})
	for _, tc := range []struct {
		name     string
		m        Mapping
		conflict bool
	}{
		{"same", mapping("tcp", "", 80, "10.0.0.3"), true},
		{"same with address", mapping("udp", "127.0.0.1", 53, "10.0.0.3"), true},
		{"other protocol", mapping("udp", "", 80, "10.0.0.3"), false},
		{"other address", mapping("udp", "127.0.0.2", 53, "10.0.0.3"), false},
		{"one address of all is more specific", mapping("tcp", "127.0.0.1", 80, "10.0.0.3"), false},
		{"other family", mapping("tcp", "", 80, "fd00::3"), false},
	} {
		err := table.conflict("b", []Mapping{tc.m})
		var c *ConflictError
		if errors.As(err, &c) != tc.conflict {
			t.Errorf("%s: %v", tc.name, err)
		}
		if c != nil && c.Holder != "a" {
			t.Errorf("%s: holder %s", tc.name, c.Holder)
		}
	}
	if err := table.conflict("a", []Mapping{mapping("tcp", "", 80, "10.0.0.2")}); err != nil {
		t.Errorf("own port: %v", err)
	}
	if err := table.conflict("b", []Mapping{mapping("icmp", "", 80, "10.0.0.2")}); err == nil {
		t.Error("protocol icmp accepted")
	}
}

func TestElements(t *testing.T) {
	e := elementsOf(v4, []Mapping{mapping("tcp", "", 8080, "10.0.0.2"), mapping("tcp", "127.0.0.1", 8080, "10.0.0.2")})
	target := []byte{10, 0, 0, 2, 0, 80, 0, 0}
	if d := cmp.Diff([]nftables.SetElement{{Key: []byte{6, 0, 0, 0, 0x1f, 0x90, 0, 0}, Val: target}}, e.any); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]nftables.SetElement{{Key: []byte{127, 0, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0}, Val: target}}, e.byAddr); d != "" {
		t.Error(d)
	}
	// Both mappings are one flow.
	if d := cmp.Diff([]nftables.SetElement{{Key: []byte{6, 0, 0, 0, 0x1f, 0x90, 0, 0, 10, 0, 0, 2, 0, 80, 0, 0}}}, e.byFlow); d != "" {
		t.Error(d)
	}
}

func TestSubnetElements(t *testing.T) {
	table := New("br0")
	for _, s := range []string{"10.1.0.0/24", "10.0.0.0/8", "10.1.0.0/24", "192.0.2.0/24", "fd00::/64"} {
		table.subnets = append(table.subnets, netip.MustParsePrefix(s))
	}
	want := []nftables.SetElement{
		{Key: []byte{10, 0, 0, 0}}, {Key: []byte{11, 0, 0, 0}, IntervalEnd: true},
		{Key: []byte{192, 0, 2, 0}}, {Key: []byte{192, 0, 3, 0}, IntervalEnd: true},
	}
	if d := cmp.Diff(want, table.subnetElements(v4)); d != "" {
		t.Error(d)
	}
	end := make([]byte, 16)
	end[0], end[7] = 0xfd, 1 // fd00:0:0:1::
	want = []nftables.SetElement{{Key: append([]byte{0xfd}, make([]byte, 15)...)}, {Key: end, IntervalEnd: true}}
	if d := cmp.Diff(want, table.subnetElements(v6)); d != "" {
		t.Error(d)
	}
	table.subnets = []netip.Prefix{netip.MustParsePrefix("ff00::/8")} // has no end
	if got := table.subnetElements(v6); len(got) != 1 {
		t.Errorf("%d elements for ff00::/8, want the start alone", len(got))
	}
}

func TestFix(t *testing.T) {
	for _, tc := range []struct {
		name, table string
		family      nftables.TableFamily
		chains      []string // the first is the one that drops
		fix         string
	}{
		{"iptables-nft", "filter", nftables.TableFamilyIPv4, []string{"FORWARD"}, "iptables -I FORWARD -i br0 -j ACCEPT && iptables -I FORWARD -o br0 -j ACCEPT"},
		{"docker", "filter", nftables.TableFamilyIPv4, []string{"FORWARD", "DOCKER-USER"}, "iptables -I DOCKER-USER -i br0"},
		{"ufw", "filter", nftables.TableFamilyIPv4, []string{"FORWARD", "ufw-user-forward"}, "ufw route allow in on br0"},
		{"firewalld", "firewalld", nftables.TableFamilyINet, []string{"filter_FORWARD"}, "firewall-cmd --permanent --zone=trusted --add-interface=br0"},
		{"docker, IPv6", "filter", nftables.TableFamilyIPv6, []string{"FORWARD", "DOCKER-USER"}, "ip6tables -I DOCKER-USER -i br0 -j ACCEPT && ip6tables -I DOCKER-USER -o br0"},
		{"ufw, IPv6", "filter", nftables.TableFamilyIPv6, []string{"FORWARD", "ufw6-user-forward"}, "ufw route allow in on br0"},
		{"own rules", "filter", nftables.TableFamilyINet, []string{"forward"}, "nft insert rule inet filter forward iifname br0 accept && nft insert rule inet filter forward oifname br0 accept"},
	} {
		table := &nftables.Table{Name: tc.table, Family: tc.family}
		var chains []*nftables.Chain
		for _, c := range tc.chains {
			chains = append(chains, &nftables.Chain{Name: c, Table: table})
		}
		if got := fix(chains, chains[0], "br0"); !strings.HasPrefix(got, tc.fix) {
			t.Errorf("%s: %s", tc.name, got)
		}
	}
}
