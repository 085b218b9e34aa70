package oci

import "strings"

// AppArmorProfile is the text of the profile that RuntimeDefault means, in the
// language of apparmor.d(5); the daemon has apparmor_parser(8) load it. With abi
// it is bound to what AppArmor 3.0 mediates, where the parser has that file:
// what later versions add (user namespaces, io_uring) would be refused unless it
// is named, which an older parser cannot read.
//
// It is the second fence: capabilities, masked and read-only paths, namespaces
// and seccomp are the first. So it allows what they do not forbid, files,
// network and capabilities, and denies what a hole in them would open: mounts,
// and writing to those parts of /proc and /sys that are the node's.
func AppArmorProfile(name string, abi bool) string {
	text := apparmorText
	if abi {
		text = "abi <abi/3.0>,\n\n" + text
	}
	return strings.ReplaceAll(text, "NAME", name)
}

// apparmorText: a deny wins over every allow, and the patterns are matched with
// the real path: /proc/self is /proc/PID by then. In a pattern * ends at a
// slash, ** does not, [^x] is one character. Of /proc/sys those parameters stay
// that belong to the container's own namespaces: net, and in kernel the IPC ones
// (shm*, msg*, sem*).
const apparmorText = `profile NAME flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=NAME,
  ptrace (trace, read, tracedby, readby) peer=NAME,

  deny mount,
  deny remount,
  deny pivot_root,

  deny /proc/* w,
  deny /proc/[^0-9s]*/** wl,
  deny /proc/s[^y]*/** wl,
  deny /proc/sys[^/]*/** wl,
  deny /proc/sys/[^kn]*/** wl,
  deny /proc/sys/kernel/{[^ms]**,m[^s]**,s[^he]**,se[^m]**} wl,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  deny /sys/{[^f],f[^s],fs/[^c],fs/c[^g]}** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
`
