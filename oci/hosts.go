package oci

import "bytes"

// HostsFile returns the contents of a pod's /etc/hosts: the local names and the
// pod's own under each of its addresses. A pod on the node's network gets the
// node's file instead, given as node; the kubelet mounts its own over this one
// in any other case, so it is what crictl's users see.
func HostsFile(hostname string, ips []string, node []byte) []byte {
	if node != nil {
		return node
	}
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n")
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n")
	b.WriteString("fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
	for _, ip := range ips {
		b.WriteString(ip + "\t" + hostname + "\n")
	}
	return b.Bytes()
}
