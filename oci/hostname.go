package oci

import (
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxHostname is what a DNS label may have; the kernel takes one more
// (__NEW_UTS_LEN, sethostname(2)).
const maxHostname = 63

// Hostname returns the name that containers of the pod see: the one asked for;
// on the node's network, where the UTS namespace is the node's, else nodeName;
// else the pod's name made into a DNS label, which is what the kubelet would
// have sent.
func Hostname(c *criapi.PodSandboxConfig, nodeName string) (string, error) {
	name := c.GetHostname()
	if name == "" {
		if c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == criapi.NamespaceMode_NODE {
			return nodeName, nil
		}
		return hostLabel(c.GetMetadata().GetName()), nil
	}
	if len(name) > maxHostname {
		return "", badPod("hostname", "%q has %d bytes; 63 is the most", name, len(name))
	}
	for i := range len(name) {
		if c := name[i]; !isAlnum(c) && c != '-' && c != '.' && c != '_' {
			return "", badPod("hostname", "%q may hold only letters, digits, '-', '_' and '.'", name)
		}
	}
	if !isAlnum(name[0]) || !isAlnum(name[len(name)-1]) || strings.Contains(name, "..") {
		return "", badPod("hostname", "%q must begin and end with a letter or a digit", name)
	}
	return name, nil
}

func hostLabel(name string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	if len(label) > maxHostname {
		label = label[:maxHostname]
	}
	if label = strings.Trim(label, "-"); label == "" {
		return "pod"
	}
	return label
}

// HostnameFile returns the contents of /etc/hostname.
func HostnameFile(name string) []byte { return []byte(name + "\n") }
