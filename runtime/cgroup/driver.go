package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/host"
)

// DriverAuto leaves the choice of the driver to ChooseDriver.
const DriverAuto = "auto"

// ChooseDriver decides who makes cgroups, host.DriverCgroupfs or
// host.DriverSystemd, and says why. What is asked for is taken, if it is there.
// Of itself it takes systemd where that is PID 1, answers, and has a pure cgroup
// v2: two writers of one tree undo each other's work, and there systemd is the
// first. On v1 systemd holds part of the hierarchies only, and the kubelet's own
// default is cgroupfs.
func ChooseDriver(ctx context.Context, want string, layout Layout) (driver, why string, err error) {
	switch want {
	case host.DriverCgroupfs:
		return host.DriverCgroupfs, "asked for", nil
	case host.DriverSystemd:
		version, err := systemdAnswers(ctx, systemdSocket)
		if err != nil {
			return "", "", err
		}
		return host.DriverSystemd, fmt.Sprintf("asked for; systemd %d", version), nil
	case DriverAuto:
	default:
		return "", "", fmt.Errorf("cgroup driver %q is none of %s, %s, %s", want, DriverAuto, host.DriverCgroupfs, host.DriverSystemd)
	}
	if layout.Mode != host.CgroupV2 {
		return host.DriverCgroupfs, "cgroups are not all on v2", nil
	}
	version, err := systemdAnswers(ctx, systemdSocket)
	if err != nil {
		return host.DriverCgroupfs, err.Error(), nil
	}
	return host.DriverSystemd, fmt.Sprintf("systemd %d is PID 1, cgroup v2", version), nil
}

// FindSystemd looks whether there is a systemd that this process may ask, at the
// price of one look-up. It listens to the machine's root alone.
func FindSystemd() error {
	err := unix.Faccessat(unix.AT_FDCWD, systemdSocket, unix.W_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: it is PID 1 nowhere that this process sees, for there is no %s", ErrNoSystemd, systemdSocket)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w: it takes the machine's root", ErrNoSystemd, systemdSocket, err)
	}
	return nil
}

// systemdAnswers gives the version of the systemd that is PID 1.
func systemdAnswers(ctx context.Context, socket string) (version int, err error) {
	if comm, err := os.ReadFile("/proc/1/comm"); err != nil || string(bytes.TrimSpace(comm)) != "systemd" {
		return 0, fmt.Errorf("%w: PID 1 is %s", ErrNoSystemd, bytes.TrimSpace(comm))
	}
	b := bus{socket: socket}
	err = b.ask(ctx, func(_ context.Context, s *session) error {
		if version = s.version(); version == 0 {
			return errors.New("systemd does not tell its version")
		}
		return nil
	})
	return version, err
}
