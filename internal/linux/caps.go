package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The capability calls act on the calling thread only (capabilities(7)): a Go
// caller must hold runtime.LockOSThread and must not give the thread back.

// AmbientClear empties the thread's ambient set.
func AmbientClear() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	return nil
}

// AmbientRaise adds one capability to the thread's ambient set. EPERM means
// that it is not in both the permitted and the inheritable set.
func AmbientRaise(capability uint) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(capability), 0, 0); err != nil {
		return fmt.Errorf("raise ambient capability %d: %w", capability, err)
	}
	return nil
}

// AmbientHas reports whether a capability is in the thread's ambient set.
func AmbientHas(capability uint) bool {
	n, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(capability), 0, 0)
	return err == nil && n == 1
}

// Bounding returns the thread's capability bounding set, one bit each.
func Bounding() (uint64, error) {
	var set uint64
	for c := range uintptr(64) {
		n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // past the last capability
			return set, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read capability %d of the bounding set: %w", c, err)
		}
		set |= uint64(n) << c
	}
	return set, nil
}

// Capabilities returns the effective, permitted and inheritable sets of the
// calling thread (capget(2)).
func Capabilities() (effective, permitted, inheritable uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, 0, 0, fmt.Errorf("read capabilities: %w", err)
	}
	join := func(low, high uint32) uint64 { return uint64(low) | uint64(high)<<32 }
	return join(data[0].Effective, data[1].Effective),
		join(data[0].Permitted, data[1].Permitted),
		join(data[0].Inheritable, data[1].Inheritable), nil
}
