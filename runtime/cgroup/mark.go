package cgroup

import "golang.org/x/sys/unix"

// Parents that are missing must be made, and whoever asked for the child does
// not know of them: kubelet makes a pod's cgroup in the hierarchies it knows,
// and not in the v2 one of a hybrid machine, nor does it remove it there. So
// what is made on the way carries an extended attribute, which needs no other
// record and goes away with the cgroup; kernfs has them on v1 and v2. The slices
// that systemd starts above one of ours carry it in one hierarchy.
const mark = "trusted.cri-mini.made"

// setMark is best effort: without CAP_SYS_ADMIN the parent is left behind empty.
func setMark(dir string) { _ = unix.Setxattr(dir, mark, []byte("1"), 0) }

func hasMark(dir string) bool {
	n, err := unix.Getxattr(dir, mark, nil)
	return err == nil && n > 0
}
