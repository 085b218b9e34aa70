package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// TestPrivateBesideOtherNamespaces: on a node of systemd's, /run is shared, and the mount namespaces of its services have
// copies of it.
func TestPrivateBesideOtherNamespaces(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mount namespaces: must be root")
	}
	dir := t.TempDir()
	result, over := make(chan error), make(chan struct{})
	linux.GoThread(func() {
		err := errors.Join(
			unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", dir, "tmpfs", 0, ""),
			unix.Mount("", dir, "", unix.MS_SHARED, ""),
		)
		if err == nil {
			err = peerNamespace(over)
		}
		if err == nil {
			err = enterPrivate(dir, filepath.Join(dir, privatePin))
		}
		result <- err
	})
	if err := <-result; err != nil {
		t.Error(err)
	}
	close(over)
}

// peerNamespace makes a copy of the thread's mount namespace, which is there until over.
func peerNamespace(over chan struct{}) error {
	own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	ready := make(chan error)
	linux.GoThread(func() {
		ready <- errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(own, unix.CLONE_NEWNS), unix.Unshare(unix.CLONE_NEWNS))
		<-over
	})
	return <-ready
}
