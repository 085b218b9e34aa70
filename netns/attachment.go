package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// IfName is the pod's interface, as kubelet and every CNI runtime have it.
const IfName = "eth0"

// Request says what Prepare needs to know of a pod.
type Request struct {
	PodID     string
	Namespace string
	Name      string
	UID       string
	NetnsPath string // visible path, e.g. /run/cri-mini/netns/<pod>
	Ports     []PortMapping
	DNS       DNS
	// Annotations: kubernetes.io/{ingress,egress}-bandwidth are read, and plugins
	// that declare io.kubernetes.cri.pod-annotations get them all.
	Annotations map[string]string
	// CgroupParent of the pod, for plugins that declare cgroupPath.
	CgroupParent string
	// Sysctls of the pod: one that turns IPv6 off has the built-in network give it none.
	Sysctls map[string]string
}

// noIPv6: the pod wants none on any interface. By the time a pod is attached its
// sysctls are set, and the kernel refuses an address.
func (r Request) noIPv6() bool {
	for _, name := range []string{"net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"} {
		if v := r.Sysctls[name]; v != "" && v != "0" {
			return true
		}
	}
	return false
}

// PortMapping is CRI's: HostPort 0 asks for nothing, Protocol "" is TCP, HostIP
// "" is every address of the host, 0.0.0.0 every IPv4 and :: every IPv6 one.
type PortMapping struct {
	Protocol      string
	ContainerPort int32
	HostPort      int32
	HostIP        string
}

// DNS is the pod's resolver configuration, for plugins that declare dns.
type DNS struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// Attachment is one pod's connection to the network: plain data, to be stored
// by the caller before Attach and again after it.
type Attachment struct {
	PodID     string          `json:"podID"`
	Mode      string          `json:"mode"`     // builtin or cni
	Network   string          `json:"network"`  // name in the conflist
	Conflist  json.RawMessage `json:"conflist"` // complete, as it was at Prepare
	NetnsPath string          `json:"netnsPath"`
	IfName    string          `json:"ifName"`
	Args      [][2]string     `json:"args,omitempty"` // CNI_ARGS
	// Capabilities are the capability arguments; libcni hands each plugin those
	// that it declares.
	Capabilities map[string]json.RawMessage `json:"capabilities,omitempty"`

	// Set by Attach. IPs are the pod's addresses, the primary one first.
	IPs    []string        `json:"ips,omitempty"`
	Result json.RawMessage `json:"result,omitempty"` // the CNI result, version 1.x
}

// Prepare decides how the pod will be attached: mode, conflist, arguments. It
// changes nothing on the host. A request that cannot be served is refused here,
// with the field's name.
func (n *Network) Prepare(r Request) (*Attachment, error) {
	if r.PodID == "" || r.NetnsPath == "" {
		return nil, errors.New("prepare network: pod id and netns path must be given")
	}
	c, err := n.current()
	if err != nil {
		return nil, fmt.Errorf("prepare network of pod %s: %w", r.PodID, err)
	}
	if c.mode == ModeBuiltin && r.noIPv6() {
		n.mu.Lock()
		c, err = n.builtinChoice(only4(n.subnets()))
		n.mu.Unlock()
		if err != nil {
			return nil, fmt.Errorf("prepare network of pod %s: %w", r.PodID, err)
		}
	}
	caps, err := n.capabilities(r)
	if err != nil {
		return nil, &RequestError{fmt.Errorf("pod config: %w", err)}
	}
	return &Attachment{
		PodID: r.PodID, Mode: c.mode, Network: c.list.Name, Conflist: c.list.Bytes,
		NetnsPath: r.NetnsPath, IfName: IfName, Capabilities: caps,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", r.Namespace},
			{"K8S_POD_NAME", r.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", r.PodID},
			{"K8S_POD_UID", r.UID},
		},
	}, nil
}

// RequestError is a wish that no network can fulfil as it is written; its words name the field.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }

// Unwrap gives what is wrong.
func (e *RequestError) Unwrap() error { return e.Err }

// call is what libcni needs to know for one attachment.
type call struct {
	lib  *libcni.CNIConfig
	list *libcni.NetworkConfigList
	rt   *libcni.RuntimeConf
	dir  string // of lib's cache
}

// open turns the record back into libcni's arguments.
func (n *Network) open(att *Attachment) (call, error) {
	c := call{lib: n.libs[att.Mode], dir: n.cfg.StateDir}
	if c.lib == nil {
		return c, fmt.Errorf("recorded network mode %q is none of builtin, cni", att.Mode)
	}
	if att.Mode == ModeBuiltin {
		c.dir = n.cfg.RunDir
	}
	list, err := libcni.NetworkConfFromBytes(att.Conflist)
	if err != nil {
		return c, fmt.Errorf("read recorded conflist: %w", err)
	}
	caps := map[string]any{}
	for k, v := range att.Capabilities {
		caps[k] = v
	}
	c.list = list
	c.rt = &libcni.RuntimeConf{
		ContainerID: att.PodID, NetNS: att.NetnsPath, IfName: att.IfName,
		Args: att.Args, CapabilityArgs: caps,
	}
	return c, nil
}

func (c call) cacheFile() string {
	return filepath.Join(c.dir, "results", c.list.Name+"-"+c.rt.ContainerID+"-"+c.rt.IfName)
}

func (n *Network) cached(c call) bool {
	_, err := os.Stat(c.cacheFile())
	return err == nil
}

// restoreResult gives libcni the recorded result back where its own cache has
// lost it: plugins need it for DEL and CHECK. A bare result is the old form of a
// cache file, which libcni reads.
func (n *Network) restoreResult(att *Attachment, c call) error {
	if len(att.Result) == 0 || att.Mode == ModeBuiltin || n.cached(c) {
		return nil
	}
	path := c.cacheFile()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("restore recorded result: %w", err)
	}
	if err := os.WriteFile(path, att.Result, 0o600); err != nil {
		return fmt.Errorf("restore recorded result: %w", err)
	}
	return nil
}

// fill takes over what the plugins answered. The result is kept in the
// network's own version, the addresses of the pod's interface come first.
func (att *Attachment) fill(res types.Result) error {
	data, err := json.Marshal(res)
	if err != nil {
		return fmt.Errorf("attach pod %s to network %q: encode result: %w", att.PodID, att.Network, err)
	}
	r, err := types100.NewResultFromResult(res)
	if err != nil {
		return fmt.Errorf("attach pod %s to network %q: convert result: %w", att.PodID, att.Network, err)
	}
	att.Result, att.IPs = data, nil
	var others []string
	for _, ip := range r.IPs {
		if i := ip.Interface; i == nil || *i < 0 || *i >= len(r.Interfaces) ||
			(r.Interfaces[*i].Name == att.IfName && r.Interfaces[*i].Sandbox != "") {
			att.IPs = append(att.IPs, ip.Address.IP.String())
		} else {
			others = append(others, ip.Address.IP.String())
		}
	}
	att.IPs = append(att.IPs, others...)
	if len(att.IPs) == 0 {
		return fmt.Errorf("attach pod %s to network %q: the plugins assigned no IP address", att.PodID, att.Network)
	}
	return nil
}

// wrap says whose network did what; a plugin's error already names the plugin,
// so libcni's words around it go.
func (att *Attachment) wrap(verb string, err error) error {
	var p *PluginError
	if errors.As(err, &p) {
		err = p
	}
	return fmt.Errorf("%s pod %s, network %q: %w", verb, att.PodID, att.Network, err)
}
