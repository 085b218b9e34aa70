package nat

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Drop is another program's chain that drops forwarded packets and has no rule
// about our bridge.
type Drop struct {
	Family, Table, Chain string
	Legacy               bool   // of iptables-legacy, not of nftables
	Fix                  string // shell command
}

func (d Drop) String() string {
	kind := "nft"
	if d.Legacy {
		kind = "iptables-legacy"
	}
	return fmt.Sprintf("%s table %s %s, chain %s, drops forwarded packets, so pods may reach nothing beyond this host; allow the pod bridge: %s",
		kind, d.Family, d.Table, d.Chain, d.Fix)
}

// ForeignDrops looks for what keeps pods from the world: base chains on the
// forward hook, of other tables, whose policy is drop or whose last rule drops or
// rejects all that is left; and the same in the tables of iptables-legacy, which
// are no part of nftables. A table in which some rule names the bridge and does
// not drop is taken as settled: its owner has been told about us. Tables of IPv6
// count if pods have it.
func ForeignDrops(bridge string, ipv6 bool) ([]Drop, error) {
	drops, err := nftDrops(bridge, ipv6)
	if err != nil {
		return nil, err
	}
	families := []xtFamily{xt4}
	if ipv6 {
		families = append(families, xt6)
	}
	for _, f := range families {
		d, err := f.drops(bridge)
		if err != nil {
			return nil, err
		}
		if d {
			drops = append(drops, Drop{Family: f.name, Table: "filter", Chain: "FORWARD", Legacy: true, Fix: accept(f.command+"-legacy", "FORWARD", bridge)})
		}
	}
	return drops, nil
}

func nftDrops(bridge string, ipv6 bool) ([]Drop, error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { _ = c.CloseLasting() }()
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nft chains: %w", err)
	}
	var out []Drop
	for _, ch := range chains {
		if !onForward(ch, ipv6) || ch.Table.Name == bridge {
			continue
		}
		drops := ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
		if !drops {
			rules, err := c.GetRules(ch.Table, ch)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, fmt.Errorf("list nft rules of %s: %w", ch.Name, err)
			}
			drops = len(rules) > 0 && dropsAll(rules[len(rules)-1])
		}
		if !drops {
			continue
		}
		settled, err := names(c, chains, ch.Table, bridge)
		if err != nil {
			return nil, err
		}
		if !settled {
			out = append(out, Drop{Family: familyName(ch.Table), Table: ch.Table.Name, Chain: ch.Name, Fix: fix(chains, ch, bridge)})
		}
	}
	return out, nil
}

func onForward(ch *nftables.Chain, ipv6 bool) bool {
	if ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward || ch.Type != nftables.ChainTypeFilter {
		return false
	}
	f := ch.Table.Family
	return f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyINet || ipv6 && f == nftables.TableFamilyIPv6
}

// dropsAll: nothing but counters and logs before the verdict.
func dropsAll(r *nftables.Rule) bool {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		case *expr.Target: // iptables-nft: -j REJECT
			return e.Name == "REJECT"
		default:
			return false
		}
	}
	return false
}

// names says whether a rule of the table compares an interface with the bridge
// and then does anything but drop.
func names(c *nftables.Conn, chains []*nftables.Chain, table *nftables.Table, bridge string) (bool, error) {
	in, out := false, false
	for _, ch := range chains {
		if ch.Table.Name != table.Name || ch.Table.Family != table.Family {
			continue
		}
		rules, err := c.GetRules(table, ch)
		if err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			return false, fmt.Errorf("list nft rules of %s: %w", ch.Name, err)
		}
		for _, r := range rules {
			i, o := allows(r, bridge)
			in, out = in || i, out || o
		}
	}
	return in && out, nil
}

func allows(r *nftables.Rule, bridge string) (in, out bool) {
	var key expr.MetaKey
	dropped := true
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			key = e.Key
		case *expr.Cmp:
			same := e.Op == expr.CmpOpEq && string(bytes.TrimRight(e.Data, "\x00")) == bridge
			in = in || (same && key == expr.MetaKeyIIFNAME)
			out = out || (same && key == expr.MetaKeyOIFNAME)
		case *expr.Verdict:
			dropped = e.Kind == expr.VerdictDrop
		case *expr.Target:
			dropped = e.Name == "REJECT"
		}
	}
	if dropped {
		return false, false
	}
	return in, out
}

func familyName(t *nftables.Table) string {
	switch t.Family {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}

// accept lets the bridge's packets pass in both directions, at the chain's head.
func accept(command, chain, bridge string) string {
	rule := func(flag string) string {
		return strings.Join([]string{command, "-I", chain, flag, bridge, "-j ACCEPT"}, " ")
	}
	return rule("-i") + " && " + rule("-o")
}

// fix is the command in the words of the program that owns the chain.
func fix(chains []*nftables.Chain, ch *nftables.Chain, bridge string) string {
	has := func(name string) bool {
		for _, o := range chains {
			if o.Name == name && o.Table.Name == ch.Table.Name && o.Table.Family == ch.Table.Family {
				return true
			}
		}
		return false
	}
	name, iptables := familyName(ch.Table), "iptables"
	if name == "ip6" {
		iptables = "ip6tables"
	}
	switch {
	case ch.Table.Name == "firewalld":
		return "firewall-cmd --permanent --zone=trusted --add-interface=" + bridge + " && firewall-cmd --reload"
	case has("ufw-user-forward"), has("ufw6-user-forward"):
		return "ufw route allow in on " + bridge + " && ufw route allow out on " + bridge
	case has("DOCKER-USER"):
		return accept(iptables, "DOCKER-USER", bridge)
	case name != "inet" && ch.Table.Name == "filter" && ch.Name == "FORWARD":
		return accept(iptables, "FORWARD", bridge)
	}
	rule := func(key string) string {
		return strings.Join([]string{"nft insert rule", name, ch.Table.Name, ch.Name, key, bridge, "accept"}, " ")
	}
	return rule("iifname") + " && " + rule("oifname")
}
