package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// ipcSysctls belong to the IPC namespace, with all of fs.mqueue.
var ipcSysctls = []string{
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
}

// sysctls gives path and value of each kernel parameter, sorted.
func (b *builder) sysctls() ([][2]string, error) {
	var pairs [][2]string
	for _, key := range sortedKeys(b.spec.Linux.Sysctl) {
		file := sysctlPath(key)
		if err := b.checkSysctl(fmt.Sprintf("linux.sysctl[%q]", key), file); err != nil {
			return nil, err
		}
		pairs = append(pairs, [2]string{file, b.spec.Linux.Sysctl[key]})
	}
	return pairs, nil
}

// sysctlPath is the name below /proc/sys. As in sysctl.d(5), the first separator decides: after a dot, dots
// separate and slashes stand for dots (net.ipv4.conf.eth0/100.forwarding); after a slash it is the path.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i < 0 || key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// sysctlNamespace says to which namespace a parameter belongs; none is the host.
func sysctlNamespace(file string) (flag uint64, word string) {
	switch {
	case slices.Contains(ipcSysctls, file) || strings.HasPrefix(file, "fs/mqueue/"):
		return plan.NewIPC, "IPC"
	case strings.HasPrefix(file, "net/"):
		return plan.NewNet, "network"
	case file == "kernel/domainname":
		return plan.NewUTS, "UTS"
	case strings.HasPrefix(file, "user/"):
		return plan.NewUser, "user"
	}
	return 0, ""
}

// sysctlNamespaces are those in which parameters are set.
func (b *builder) sysctlNamespaces() (flags uint64) {
	for key := range b.spec.Linux.Sysctl {
		flag, _ := sysctlNamespace(sysctlPath(key))
		flags |= flag
	}
	return flags
}

// checkSysctl refuses a parameter that would be the host's.
func (b *builder) checkSysctl(field, file string) error {
	for part := range strings.SplitSeq(file, "/") {
		if part == "" || part == "." || part == ".." {
			return bad(field, "is not the name of a kernel parameter")
		}
	}
	need, word := sysctlNamespace(file)
	switch {
	case file == "kernel/hostname":
		return bad(field, "is set by the field hostname")
	case need == 0:
		return bad(field, "belongs to no namespace: it would change the host")
	case !b.ns.has(need):
		return bad(field, "needs a %s namespace: it would change the host", word)
	}
	return nil
}
