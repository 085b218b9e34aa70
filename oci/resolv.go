package oci

import (
	"bytes"
	"net/netip"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxResolvConf bounds what is taken over from the node's file.
const maxResolvConf = 64 << 10

// ResolvConf returns the contents of a pod's resolv.conf (resolv.conf(5)): what
// dns_config says, or where it says nothing the node's file. From that,
// loopback servers are left out for a pod with a network of its own, since they
// would be the pod's loopback, where nobody answers.
func ResolvConf(c *criapi.PodSandboxConfig, node []byte) ([]byte, error) {
	dns := c.GetDnsConfig()
	if len(dns.GetServers())+len(dns.GetSearches())+len(dns.GetOptions()) == 0 {
		onNode := c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == criapi.NamespaceMode_NODE
		return nodeResolvConf(node, onNode), nil
	}
	if err := checkDNS(dns); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if s := dns.GetSearches(); len(s) > 0 {
		b.WriteString("search " + strings.Join(s, " ") + "\n")
	}
	for _, s := range dns.GetServers() {
		b.WriteString("nameserver " + s + "\n")
	}
	if o := dns.GetOptions(); len(o) > 0 {
		b.WriteString("options " + strings.Join(o, " ") + "\n")
	}
	return b.Bytes(), nil
}

// checkDNS keeps a field from becoming a second line of the file.
func checkDNS(dns *criapi.DNSConfig) error {
	for i, s := range dns.GetServers() {
		if _, err := netip.ParseAddr(s); err != nil || strings.ContainsAny(s, " \t\r\n") {
			return badPod(indexed("dns_config.servers", i), "%q is not an IP address", s)
		}
	}
	for i, s := range dns.GetSearches() {
		if s == "" || strings.ContainsAny(s, " \t\r\n\x00") {
			return badPod(indexed("dns_config.searches", i), "%q is empty or holds a space", s)
		}
	}
	for i, s := range dns.GetOptions() {
		if s == "" || strings.ContainsAny(s, " \t\r\n\x00") {
			return badPod(indexed("dns_config.options", i), "%q is empty or holds a space", s)
		}
	}
	return nil
}

func nodeResolvConf(node []byte, onNode bool) []byte {
	node = wholeLines(node, maxResolvConf)
	if onNode {
		return node
	}
	var b bytes.Buffer
	for line := range bytes.Lines(node) {
		if !isLoopbackServer(string(line)) {
			b.Write(line)
		}
	}
	return b.Bytes()
}

func isLoopbackServer(line string) bool {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "nameserver" {
		return false
	}
	ip, err := netip.ParseAddr(words[1])
	return err == nil && ip.Unmap().IsLoopback()
}

// wholeLines cuts data to at most limit bytes, at the end of a line.
func wholeLines(data []byte, limit int) []byte {
	if len(data) <= limit {
		return data
	}
	return data[:bytes.LastIndexByte(data[:limit], '\n')+1]
}
