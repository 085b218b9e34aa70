//go:build cgo

package seccomp

import (
	"encoding/binary"

	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// A profile speaks of system calls that are newer than libseccomp, which then
// does not know their numbers and leaves them to the default action. An allowed
// fchmodat2 is refused that way with EPERM, and a C library that tried it first
// does not fall back on fchmodat as it would after ENOSYS: chmod is broken.
//
// Since Linux 5.1 new calls have the same number on every architecture but MIPS
// and Alpha, so a list of names is enough to put them right: a few instructions
// before libseccomp's own give the newer names of the profile their action, and
// answer ENOSYS to what is newer than the profile itself, as runc does. An old
// call passes three of them, and the kernel caches what is always allowed.

// firstCommon is the number of the first name in common.
const firstCommon = 424

// common are the names from firstCommon on (asm-generic/unistd.h).
var common = [...]string{
	"pidfd_send_signal", "io_uring_setup", "io_uring_enter", "io_uring_register", "open_tree",
	"move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "pidfd_open", "clone3",
	"close_range", "openat2", "pidfd_getfd", "faccessat2", "process_madvise", "epoll_pwait2",
	"mount_setattr", "quotactl_fd", "landlock_create_ruleset", "landlock_add_rule",
	"landlock_restrict_self", "memfd_secret", "process_mrelease", "futex_waitv",
	"set_mempolicy_home_node", "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake",
	"futex_wait", "futex_requeue", "statmount", "listmount", "lsm_get_self_attr",
	"lsm_set_self_attr", "lsm_list_modules", "mseal", "setxattrat", "getxattrat", "listxattrat",
	"removexattrat", "open_tree_attr", "file_getattr", "file_setattr", "listns",
	"rseq_slice_yield",
}

// newer collects what a profile says about the common numbers.
type newer struct {
	highest uint32 // number of the newest call that the profile names
	rules   []newRule
}

type newRule struct {
	number uint32
	act    lib.ScmpAction
}

func numberOf(name string) (uint32, bool) {
	for i, n := range common {
		if n == name {
			return uint32(firstCommon + i), true
		}
	}
	return 0, false
}

// see notes a name that libseccomp knows.
func (n *newer) see(name string) {
	if number, ok := numberOf(name); ok {
		n.highest = max(n.highest, number)
	}
}

// add notes a name that libseccomp does not know. The first action counts. One
// that depends on arguments stays with the default action, which is stricter.
func (n *newer) add(name string, act lib.ScmpAction, always bool) {
	number, ok := numberOf(name)
	if !ok {
		return
	}
	n.highest = max(n.highest, number)
	if !always {
		return
	}
	for _, r := range n.rules {
		if r.number == number {
			return
		}
	}
	n.rules = append(n.rules, newRule{number, act})
}

// prefix returns the instructions that go before the filter, or none. What they
// do not decide goes on to the filter, which loads all that it looks at itself.
func (n *newer) prefix(tokens []uint32, fallback lib.ScmpAction) []byte {
	var body []unix.SockFilter
	for _, r := range n.rules {
		if r.act != fallback {
			body = append(body, jump(unix.BPF_JEQ, r.number, 0, 1), ret(r.act))
		}
	}
	if refuses(fallback) {
		newest := max(n.highest, firstCommon-1)
		body = append(body, jump(unix.BPF_JGT, newest, 0, 1), ret(lib.ActErrno.SetReturnCode(int16(unix.ENOSYS))))
	}
	// Jumps have eight bits; the list of names is far from that.
	if len(body) == 0 || len(tokens) == 0 || len(body)+len(tokens)+3 > 255 {
		return nil
	}
	body = append([]unix.SockFilter{load(0)}, body...)
	var insns []unix.SockFilter
	rest := len(body) + len(tokens) + 2 // after the next one: past x32 and old numbers
	insns = append(insns, load(0),
		jump(unix.BPF_JGE, x32Bit, uint8(rest), 0),
		jump(unix.BPF_JGE, firstCommon, 0, uint8(rest-1)),
		load(4))
	for i, token := range tokens {
		left := len(tokens) - 1 - i
		miss := 0
		if left == 0 {
			miss = len(body)
		}
		insns = append(insns, jump(unix.BPF_JEQ, token, uint8(left), uint8(miss)))
	}
	return encode(append(insns, body...))
}

// refuses reports whether an action keeps the caller from what it wanted, so
// that ENOSYS is a kinder no.
func refuses(act lib.ScmpAction) bool {
	switch act & 0xffff {
	case lib.ActErrno, lib.ActKillThread, lib.ActKillProcess, lib.ActTrap:
		return true
	}
	return false
}

// load reads a word of struct seccomp_data: the number at 0, the architecture at 4.
func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(op uint16, value uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: value, Jt: yes, Jf: no}
}

// ret returns the kernel's word for an action (seccomp(2), SECCOMP_RET_*).
func ret(act lib.ScmpAction) unix.SockFilter {
	words := map[lib.ScmpAction]uint32{
		lib.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS,
		lib.ActKillThread:  unix.SECCOMP_RET_KILL_THREAD,
		lib.ActTrap:        unix.SECCOMP_RET_TRAP,
		lib.ActErrno:       unix.SECCOMP_RET_ERRNO,
		lib.ActNotify:      unix.SECCOMP_RET_USER_NOTIF,
		lib.ActTrace:       unix.SECCOMP_RET_TRACE,
		lib.ActLog:         unix.SECCOMP_RET_LOG,
		lib.ActAllow:       unix.SECCOMP_RET_ALLOW,
	}
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: words[act&0xffff] | uint32(uint16(act.GetReturnCode()))}
}

func encode(insns []unix.SockFilter) []byte {
	var out []byte
	for _, i := range insns {
		out = binary.NativeEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.NativeEndian.AppendUint32(out, i.K)
	}
	return out
}
