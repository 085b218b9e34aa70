package main

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// giveStdio makes the container's user the owner of the standard streams that it inherits, so that a program can
// open /dev/stdout again; runc does the same. In the foreground they may be a person's files, and only pipes that
// have no name are given away. What cannot be changed is left: the program can do most without.
func giveStdio(spec *specs.Spec, p *specs.Process, detach bool) {
	if p == nil || p.Terminal {
		return
	}
	uid := p.User.UID
	if spec.Linux != nil {
		for _, m := range spec.Linux.UIDMappings {
			if id := p.User.UID; id >= m.ContainerID && id-m.ContainerID < m.Size {
				uid = m.HostID + id - m.ContainerID
			}
		}
	}
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Uid == uid {
			continue
		}
		null := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
		if !null && (detach || anonymousPipe(fd)) {
			_ = unix.Fchown(fd, int(uid), -1)
		}
	}
}

func anonymousPipe(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.PIPEFS_MAGIC
}
