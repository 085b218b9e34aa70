package oci

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// sysctls checks that each sysctl belongs to a namespace that the pod makes:
// any other would be the node's. The keys come out in the dotted form of
// sysctl.d(5), in which '/' stands for a dot within a name ("eth0/100").
func sysctls(in map[string]string, pod *specs.Spec) (map[string]string, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		field := "linux.sysctls[" + quote(key) + "]"
		parts := sysctlParts(key)
		if parts == nil {
			return nil, badPod(field, "is not the name of a sysctl")
		}
		t, why := sysctlNamespace(parts)
		if why != "" {
			return nil, badPod(field, "%s", why)
		}
		if !hasNamespace(pod, t) {
			return nil, badPod(field, "would change the node: the pod shares the node's %s namespace", t)
		}
		if strings.ContainsAny(in[key], "\x00\n") {
			return nil, badPod(field, "the value %q holds a newline or a NUL byte", in[key])
		}
		for i, p := range parts {
			parts[i] = strings.ReplaceAll(p, ".", "/")
		}
		name := strings.Join(parts, ".")
		if _, twice := out[name]; twice {
			return nil, badPod(field, "is given twice, in two spellings")
		}
		out[name] = in[key]
	}
	return out, nil
}

// sysctlParts splits a key as sysctl(8) does: the first '.' or '/' is the
// separator, the other one then stands for a dot in a name. nil when the key
// could leave /proc/sys.
func sysctlParts(key string) []string {
	i := strings.IndexAny(key, "./")
	if i < 0 || len(key) > 255 || strings.ContainsAny(key, "\x00\n ") {
		return nil
	}
	parts := strings.Split(key, key[i:i+1])
	for j, p := range parts {
		p = strings.ReplaceAll(p, "/", ".")
		if p == "" || p == "." || p == ".." {
			return nil
		}
		parts[j] = p
	}
	return parts
}

// sysctlNamespace says which namespace a sysctl belongs to (ipc_namespaces(7),
// network_namespaces(7), uts_namespaces(7)), or why it cannot be set.
func sysctlNamespace(parts []string) (t specs.LinuxNamespaceType, why string) {
	switch name := parts[1]; {
	case parts[0] == "net" && len(parts) > 2:
		return specs.NetworkNamespace, ""
	case parts[0] == "fs" && name == "mqueue" && len(parts) == 3:
		return specs.IPCNamespace, ""
	case parts[0] != "kernel" || len(parts) != 2:
	case strings.HasPrefix(name, "shm"), strings.HasPrefix(name, "msg"), name == "sem", name == "sem_next_id":
		return specs.IPCNamespace, ""
	case name == "domainname":
		return specs.UTSNamespace, ""
	case name == "hostname":
		return "", "set hostname instead"
	}
	return "", "belongs to no namespace: setting it would change the node"
}
