// Package bridge is the built-in network: a CNI plugin of type cri-mini-bridge
// that runs inside the daemon. It owns the bridge, the veth pairs, the addresses
// in the pods, and through netns/ipam and netns/nat the leases and host ports.
//
// Only netns may import it. One invariant: everything it makes for a pod can be
// found again from the pod's id alone (lease file, interface name, interface
// alias), so DEL works without the network namespace, after a restart, and any
// number of times.
//
// Order of ADD: lease on disk, host ports (which may be refused), veth pair,
// address and route in the pod, traffic shaping. DEL is host ports, lease. The
// veth is not deleted: RTM_DELLINK of a bridge port holds the RTNL lock for about
// 20 ms, while a dropped network namespace takes its end of the pair with it for
// free; WaitGone confirms that.
package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/ipam"
	"github.com/cri-mini/cri-mini/netns/nat"
)

// Type is the plugin's name in a conflist.
const Type = "cri-mini-bridge"

// Conf is the plugin's part of a conflist, as it comes on "stdin".
type Conf struct {
	types.PluginConf
	Bridge  string         `json:"bridge"`
	Subnets []netip.Prefix `json:"subnets"` // at most one per address family, the primary one first

	RuntimeConfig struct {
		PortMappings []PortMapping `json:"portMappings,omitempty"`
		Bandwidth    Bandwidth     `json:"bandwidth,omitzero"`
	} `json:"runtimeConfig"`
}

// Bandwidth is the bandwidth capability in bits per second (CNI CONVENTIONS.md).
// Its bursts are not used: see burst.
type Bandwidth struct {
	IngressRate uint64 `json:"ingressRate,omitempty"`
	EgressRate  uint64 `json:"egressRate,omitempty"`
}

// PortMapping is one entry of the portMappings capability (CNI CONVENTIONS.md).
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Args are the CNI_* variables of one call.
type Args struct{ Command, ContainerID, Netns, IfName string }

func (a Args) owner() ipam.Owner { return ipam.Owner{Pod: a.ContainerID, IfName: a.IfName} }

// Plugin serves one bridge.
type Plugin struct {
	bridge string
	setMTU int // what the configuration says, 0 if nothing
	leases *ipam.Store
	table  *nat.Table
	log    *slog.Logger
	host   *netlink.Handle
	raw    *nl.SocketHandle // for messages of our own
	hostNS *os.File         // to come back from a pod's namespace

	changed func(sysctl string)

	mu    sync.Mutex
	up    map[netip.Prefix]bool // subnets the bridge serves
	index int                   // of the bridge; 0 before the first ensure
	mtu   int
	locks map[ipam.Owner]*entry

	doomedMu sync.Mutex
	doomed   int // links in the group doomed
}

type entry struct {
	sync.Mutex
	users int
}

// Config is what New needs.
type Config struct {
	Bridge string // interface name; also the nft table's
	MTU    int    // of bridge and pods; 0: that of the interface with the default route
	Leases *ipam.Store
	Log    *slog.Logger
	// Changed is told the name of each setting of the host, outside our own
	// interfaces, that was changed for good.
	Changed func(sysctl string)
}

// New opens the plugin. If there are leases, it restores at once what they need
// (bridge, table, host ports); otherwise the first ADD makes it.
func New(c Config) (*Plugin, error) {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	raw, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		host.Close()
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	hostNS, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		host.Close()
		raw.Close()
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	p := &Plugin{
		bridge: c.Bridge, setMTU: c.MTU, leases: c.Leases, table: nat.New(c.Bridge), log: c.Log, changed: c.Changed,
		host: host, raw: &nl.SocketHandle{Socket: raw}, hostNS: hostNS,
		up: map[netip.Prefix]bool{}, locks: map[ipam.Owner]*entry{},
	}
	if err := p.Restore(); err != nil {
		c.Log.Warn("restore pod network", "obj", c.Bridge, "err", err)
	}
	return p, nil
}

// Close closes the sockets; it leaves the network as it is.
func (p *Plugin) Close() {
	p.table.Close()
	p.host.Close()
	p.raw.Close()
	p.hostNS.Close()
}

// attrs are the bridge's index and MTU; 0 before the first ensure.
func (p *Plugin) attrs() (index, mtu int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index, p.mtu
}

// lock serialises the calls for one interface; a retried ADD waits for the first.
func (p *Plugin) lock(o ipam.Owner) (unlock func()) {
	p.mu.Lock()
	e := p.locks[o]
	if e == nil {
		e = &entry{}
		p.locks[o] = e
	}
	e.users++
	p.mu.Unlock()
	e.Lock()
	return func() {
		e.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(p.locks, o)
		}
	}
}

// Exec runs one CNI command and returns what a plugin would print. Errors are
// *types.Error with the codes of the CNI specification.
func (p *Plugin) Exec(ctx context.Context, conf []byte, a Args) ([]byte, error) {
	if a.Command == "VERSION" {
		return json.Marshal(version.All)
	}
	var c Conf
	if err := json.Unmarshal(conf, &c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "parse network configuration", err.Error())
	}
	if err := c.validate(p.bridge); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	var out []byte
	var err error
	switch a.Command {
	case "ADD":
		out, err = p.add(c, a)
	case "DEL":
		err = p.del(a)
	case "CHECK":
		err = p.check(c, a)
	case "STATUS":
	case "GC":
		keep := map[ipam.Owner]bool{}
		for _, v := range c.ValidAttachments {
			keep[ipam.Owner{Pod: v.ContainerID, IfName: v.IfName}] = true
		}
		err = p.gc(c.Name, keep)
	default:
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, "unknown CNI_COMMAND "+a.Command, "")
	}
	return out, err
}

func (p *Plugin) add(c Conf, a Args) ([]byte, error) {
	ports, err := parsePorts(c.RuntimeConfig.PortMappings, c.Subnets)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	ns, err := openNetns(a.Netns)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, err.Error(), "")
	}
	defer ns.Close()
	defer p.lock(a.owner())()
	bw := c.RuntimeConfig.Bandwidth
	want := ipam.Lease{Owner: a.owner(), Network: c.Name, Ports: ports, Shape: ipam.Shape{Ingress: bw.IngressRate, Egress: bw.EgressRate}}
	lease, had, err := p.leases.Acquire(want, c.Subnets)
	if errors.Is(err, ipam.ErrFull) {
		return nil, types.NewError(types.ErrTryAgainLater, err.Error(), "remove pods, or give the node a larger one: network.pod_cidr, or the podCIDR of its Node object")
	}
	if err != nil {
		return nil, err
	}
	if err := p.ensure(subnets(lease), false); err != nil {
		return nil, err
	}
	if err := p.expose(lease); err != nil {
		if errors.As(err, new(*nat.ConflictError)) && !had {
			// Not ours to keep until DEL: after a restart two leases would claim
			// the port, and the wrong one might get it.
			err = errors.Join(err, p.leases.Release(a.owner()))
		}
		return nil, err
	}
	if err := p.link(lease, ns, had); err != nil {
		// The bridge may have been deleted behind our back: make it again, once.
		if err2 := p.ensure(subnets(lease), true); err2 != nil {
			return nil, errors.Join(err, err2)
		}
		if err = p.link(lease, ns, true); err != nil {
			return nil, err
		}
	}
	if err := p.shape(lease); err != nil {
		return nil, err
	}
	return p.result(c, lease, a.Netns)
}

// expose maps the lease's host ports.
func (p *Plugin) expose(l ipam.Lease) error {
	if len(l.Ports) == 0 {
		return nil
	}
	if err := p.table.Add(l.Owner.String(), mappings(l)); err != nil {
		return err
	}
	p.dropFlows(l)
	return nil
}

func (p *Plugin) del(a Args) error {
	defer p.lock(a.owner())()
	lease, ok := p.leases.Get(a.owner())
	if err := p.table.Remove(a.owner().String()); err != nil {
		return err
	}
	if !ok {
		return nil
	}
	if len(lease.Ports) > 0 {
		p.dropFlows(lease)
	}
	if lease.Shape.Egress > 0 {
		if err := p.doom(ifbName(lease.Owner)); err != nil {
			return err
		}
	}
	return p.leases.Release(a.owner())
}
