package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkSources refuses sources that are missing or cannot be opened, and those from or to which nothing can propagate.
// None is made, as the API has it; symbolic links are followed, now and when the container starts.
func checkSources(config *criapi.ContainerConfig) error {
	for i, mnt := range config.GetMounts() {
		path := mnt.GetHostPath()
		if mnt.GetImage().GetImage() != "" {
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("container config: mounts[%d].host_path: %q does not exist on this node: %w", i, path, ErrInvalid)
		}
		if err != nil {
			return fmt.Errorf("container config: mounts[%d].host_path: open %q: %w", i, path, err)
		}
		err = checkPropagation(fd, mnt.GetPropagation())
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("container config: mounts[%d].propagation: %s of %q: %w", i, mnt.GetPropagation(), path, err)
		}
	}
	return nil
}

// checkPropagation wants the mount that a source lies on to have peers: without, what is asked for would be granted and
// never happen.
func checkPropagation(fd int, wanted criapi.MountPropagation) error {
	if wanted == criapi.MountPropagation_PROPAGATION_PRIVATE {
		return nil
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return fmt.Errorf("find its mount: %w", err)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("find its mount: %w", err)
	}
	point, shared, slave := peers(info, st.Mnt_id)
	switch {
	case point == "" || shared || slave && wanted == criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		return nil
	case slave:
		return fmt.Errorf("nothing propagates to the node from the mount at %s, a slave; mount --make-shared %[1]s: %w", point, ErrInvalid)
	}
	return fmt.Errorf("nothing propagates from or to the mount at %s, which is private; mount --make-rshared %[1]s: %w", point, ErrInvalid)
}

// peers finds a mount by its id (proc_pid_mountinfo(5)): where it is, and whether others see what is mounted below it, or
// it sees what is mounted below others. An unknown id gives no mount point.
func peers(mountinfo []byte, id uint64) (point string, shared, slave bool) {
	want := strconv.FormatUint(id, 10)
	for line := range bytes.Lines(mountinfo) {
		f := strings.Fields(string(line))
		if len(f) < 7 || f[0] != want {
			continue
		}
		for _, tag := range f[6:] {
			if tag == "-" {
				break
			}
			shared = shared || strings.HasPrefix(tag, "shared:")
			slave = slave || strings.HasPrefix(tag, "master:")
		}
		return f[4], shared, slave
	}
	return "", false, false
}
