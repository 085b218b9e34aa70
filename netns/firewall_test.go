package netns

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-mini/cri-mini/netns/nat"
)

// firewalld is what version 1.3 loads for one interface in the zone public, without its empty chains.
const firewalld = `nft -f - <<'end'
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		jump filter_FORWARD_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD_ZONES {
		goto filter_FWD_public
	}
	chain filter_FWD_public {
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
	chain filter_FWD_trusted {
		accept
	}
}
end`

// both runs a command by iptables and by ip6tables.
func both(command string) string {
	return command + " && " + strings.NewReplacer("iptables", "ip6tables", "ufw-", "ufw6-").Replace(command)
}

// TestForeignFirewall: a firewall that drops what pods send is found, and told of with the command in the words of the
// program that owns it; after that command the network is silent and the pod reaches the world.
func TestForeignFirewall(t *testing.T) {
	for _, tc := range []struct {
		name, load, fix string
		does            string // what the fix does, where its program is not here; "": the fix is run
		clean           string
		legacy          bool
	}{
		{name: "iptables", load: both("iptables -P FORWARD DROP"), fix: "iptables -I FORWARD -i cri-mini0 -j ACCEPT && iptables -I FORWARD -o cri-mini0 -j ACCEPT"},
		{name: "iptables-legacy", legacy: true, load: both("iptables-legacy -A FORWARD -i docker0 -j ACCEPT && iptables-legacy -P FORWARD DROP"),
			fix:   "iptables-legacy -I FORWARD -i cri-mini0 -j ACCEPT && iptables-legacy -I FORWARD -o cri-mini0 -j ACCEPT",
			clean: both("iptables-legacy -F FORWARD && iptables-legacy -P FORWARD ACCEPT")},
		{name: "docker", load: both("iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER && iptables -A FORWARD -o docker0 -j ACCEPT && iptables -P FORWARD DROP"),
			fix: "iptables -I DOCKER-USER -i cri-mini0 -j ACCEPT && iptables -I DOCKER-USER -o cri-mini0 -j ACCEPT"},
		{name: "ufw", load: both("iptables -N ufw-user-forward && iptables -A FORWARD -j ufw-user-forward && iptables -P FORWARD DROP"),
			fix:  "ufw route allow in on cri-mini0 && ufw route allow out on cri-mini0",
			does: both("iptables -A ufw-user-forward -i cri-mini0 -j ACCEPT && iptables -A ufw-user-forward -o cri-mini0 -j ACCEPT")},
		{name: "firewalld", load: firewalld, fix: "firewall-cmd --permanent --zone=trusted --add-interface=cri-mini0 && firewall-cmd --reload",
			does: `nft insert rule inet firewalld filter_FORWARD_ZONES iifname cri-mini0 goto filter_FWD_trusted &&
nft insert rule inet firewalld filter_FWD_trusted oifname cri-mini0 accept`},
		{name: "nftables.conf", load: `nft 'table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }'`,
			fix: "nft insert rule inet filter forward iifname cri-mini0 accept && nft insert rule inet filter forward oifname cri-mini0 accept"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			needRoot(t)
			if tc.legacy && !legacyTables() {
				t.Skip("needs a kernel with CONFIG_IP_NF_IPTABLES_LEGACY")
			}
			n := dualStack(t)
			away := outside(t)
			serve(t, away, "tcp", ":80", "away")
			a := attach(t, n, "a")
			if s := n.Status(ctx); s.Message != "" {
				t.Fatalf("status before: %+v", s)
			}
			t.Cleanup(func() { shell(t, tc.clean+"\nnft flush ruleset") })
			shell(t, tc.load)
			n.probe.reset()
			to4, to6 := outsideIP+":80", "["+outsideIP6+"]:80"
			want(t, "under the drop", ask(t, a.ns, "tcp", to4), "")
			want(t, "under the drop, IPv6", ask(t, a.ns, "tcp", to6), "")
			if s := n.Status(ctx); !s.Ready || s.Reason != ReasonForeignForward || !strings.Contains(s.Message, tc.fix) {
				t.Errorf("status %+v lacks %q", s, tc.fix)
			}
			drops, err := nat.ForeignDrops("cri-mini0", true)
			if err != nil || len(drops) == 0 {
				t.Fatalf("drops %v, err %v", drops, err)
			}
			for _, d := range drops {
				if tc.does == "" {
					shell(t, d.Fix)
				}
			}
			shell(t, tc.does)
			if s := n.Status(ctx); s.Message != "" {
				t.Errorf("status after the fix: %+v", s)
			}
			want(t, "after the fix", ask(t, a.ns, "tcp", to4), "away ")
			want(t, "after the fix, IPv6", ask(t, a.ns, "tcp", to6), "away ")
		})
	}
}

// legacyTables says whether the kernel has those of iptables-legacy.
func legacyTables() bool {
	names, _ := filepath.Glob("/proc/net/ip_tables_names")
	return len(names) > 0
}

// TestForeignDropOfBridge: a rule that drops what is the bridge's does not count as settled.
func TestForeignDropOfBridge(t *testing.T) {
	host(t)
	for _, command := range []string{"iptables", "iptables-legacy"} {
		if command == "iptables-legacy" && !legacyTables() {
			t.Skip("needs a kernel with CONFIG_IP_NF_IPTABLES_LEGACY")
		}
		t.Cleanup(func() { shell(t, command+" -F FORWARD && "+command+" -P FORWARD ACCEPT") })
		shell(t, command+" -P FORWARD DROP && "+command+" -A FORWARD -i cri-mini0 -j DROP && "+command+" -A FORWARD -o cri-mini0 -j DROP")
		if drops, err := nat.ForeignDrops("cri-mini0", false); err != nil || len(drops) != 1 {
			t.Errorf("%s: drops %v, %v; want one", command, drops, err)
		}
		shell(t, command+" -P FORWARD ACCEPT")
	}
}
