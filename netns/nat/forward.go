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
	Fix                  string // shell command
}

func (d Drop) String() string {
	return fmt.Sprintf("nft table %s %s, chain %s, drops forwarded packets, so pods may reach nothing beyond this host; allow the pod bridge: %s",
		d.Family, d.Table, d.Chain, d.Fix)
}

// ForeignDrops looks for base chains on the forward hook, of other tables, whose
// policy is drop or whose last rule drops or rejects all that is left. A table
// in which some rule names the bridge and does not drop is taken as settled: its
// owner has been told about us. Old-style iptables (not iptables-nft) has no
// place in nftables and is not seen.
func ForeignDrops(bridge string) ([]Drop, error) {
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
		if !onForward(ch) || ch.Table.Name == bridge {
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
			out = append(out, Drop{Family: family(ch.Table), Table: ch.Table.Name, Chain: ch.Name, Fix: fix(chains, ch, bridge)})
		}
	}
	return out, nil
}

func onForward(ch *nftables.Chain) bool {
	f := ch.Table.Family
	return ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward && ch.Type == nftables.ChainTypeFilter &&
		(f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyINet)
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

func family(t *nftables.Table) string {
	if t.Family == nftables.TableFamilyIPv4 {
		return "ip"
	}
	return "inet"
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
	both := func(format string) string {
		return strings.ReplaceAll(strings.ReplaceAll(format, "BR", bridge), "CHAIN", ch.Name)
	}
	switch {
	case ch.Table.Name == "firewalld":
		return both("firewall-cmd --permanent --zone=trusted --add-interface=BR && firewall-cmd --reload")
	case has("ufw-user-forward"):
		return both("ufw route allow in on BR && ufw route allow out on BR")
	case has("DOCKER-USER"):
		return both("iptables -I DOCKER-USER -i BR -j ACCEPT && iptables -I DOCKER-USER -o BR -j ACCEPT")
	case family(ch.Table) == "ip" && ch.Table.Name == "filter" && ch.Name == "FORWARD":
		return both("iptables -I FORWARD -i BR -j ACCEPT && iptables -I FORWARD -o BR -j ACCEPT")
	}
	t := family(ch.Table) + " " + ch.Table.Name
	return fmt.Sprintf("nft insert rule %s %s iifname %s accept && nft insert rule %s %s oifname %s accept", t, ch.Name, bridge, t, ch.Name, bridge)
}
