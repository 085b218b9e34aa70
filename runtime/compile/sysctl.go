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

// checkSysctl refuses a parameter that would be the host's.
func (b *builder) checkSysctl(field, file string) error {
	for part := range strings.SplitSeq(file, "/") {
		if part == "" || part == "." || part == ".." {
			return bad(field, "is not the name of a kernel parameter")
		}
	}
	need, word := uint64(0), ""
	switch {
	case slices.Contains(ipcSysctls, file) || strings.HasPrefix(file, "fs/mqueue/"):
		need, word = plan.NewIPC, "IPC"
	case strings.HasPrefix(file, "net/"):
		need, word = plan.NewNet, "network"
	case file == "kernel/hostname":
		return bad(field, "is set by the field hostname")
	case file == "kernel/domainname":
		need, word = plan.NewUTS, "UTS"
	case strings.HasPrefix(file, "user/"):
		need, word = plan.NewUser, "user"
	default:
		return bad(field, "belongs to no namespace: it would change the host")
	}
	if !b.ns.has(need) {
		return bad(field, "needs a %s namespace: it would change the host", word)
	}
	return nil
}
