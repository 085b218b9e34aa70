package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/oci"
)

// profileLimit bounds a seccomp profile file in bytes.
const profileLimit = 1 << 20

// makeSpec looks up on this node what oci may not, and makes the container's spec. Sources of mounts are opened
// here, so that a missing one is said before the container exists.
func (m *Manager) makeSpec(ctx context.Context, c *Container, img Image, podConfig *criapi.PodSandboxConfig) (*specs.Spec, error) {
	if podConfig.GetMetadata() == nil {
		podConfig = c.pod.Config
	}
	node, _ := os.Hostname()
	in := oci.ContainerInput{
		ID: c.ID, PodID: c.pod.ID, Pod: c.pod.Config, Config: c.Config, Image: img.Config, ImageName: c.Config.GetImage().GetUserSpecifiedImage(),
		Passwd: img.Passwd, Group: img.Group, RunDir: m.cfg.RunDir, Rootfs: m.cfg.Engine.Stage(), Facts: m.facts(c.pod), PodSpec: c.pod.spec, NodeName: node,
		SELinuxLevel: c.pod.level,
	}
	_ = podConfig // the pod as it was run decides; the copy in the request may be newer
	var err error
	if in.TargetPIDNS, err = m.targetPIDNS(c); err != nil {
		return nil, err
	}
	if in.Devices, err = nodeDevices(c.Config); err != nil {
		return nil, err
	}
	if in.Volumes, err = m.lendVolumes(c); err != nil {
		return nil, err
	}
	if in.SeccompProfile, err = readProfile(oci.SeccompPath(c.Config)); err != nil {
		return nil, err
	}
	spec, err := oci.Container(in)
	if err != nil {
		return nil, invalid(err)
	}
	if err := m.apparmor.apply(ctx, m.log, spec, oci.AsksForAppArmor(c.Config)); err != nil {
		return nil, err
	}
	if err := checkSources(c.Config); err != nil {
		return nil, err
	}
	return spec, relabel(oci.RelabelPaths(c.Config), spec.Linux.MountLabel)
}

// targetPIDNS finds the PID namespace of the container that namespace_options.target_id names.
func (m *Manager) targetPIDNS(c *Container) (string, error) {
	ns := c.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if ns.GetPid() != criapi.NamespaceMode_TARGET {
		return "", nil
	}
	target, err := m.container(ns.GetTargetId())
	if err != nil {
		return "", fmt.Errorf("linux.security_context.namespace_options.target_id: %w", err)
	}
	if target.pod != c.pod {
		return "", fmt.Errorf("linux.security_context.namespace_options.target_id: container %s is in another pod: %w", target.ID, ErrInvalid)
	}
	pid, ok := m.cfg.Engine.PID(target.ID)
	if !ok {
		return "", fmt.Errorf("linux.security_context.namespace_options.target_id: container %s does not run: %w", target.ID, ErrState)
	}
	return "/proc/" + strconv.Itoa(pid) + "/ns/pid", nil
}

// maxDeviceFiles bounds the files that are looked at below the directories that a container asks for as devices.
const maxDeviceFiles = 1 << 15

// nodeDevices stats the device nodes that a container asks for, or all of /dev for a privileged one.
func nodeDevices(config *criapi.ContainerConfig) ([]oci.NodeDevice, error) {
	var out []oci.NodeDevice
	add := func(path string) error {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		typ := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			typ = "c"
		case unix.S_IFBLK:
			typ = "b"
		default:
			return nil
		}
		out = append(out, oci.NodeDevice{Path: path, Type: typ, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid})
		return nil
	}
	roots := []string{}
	for _, d := range config.GetDevices() {
		roots = append(roots, d.GetHostPath())
	}
	if config.GetLinux().GetSecurityContext().GetPrivileged() {
		roots = append(roots, "/dev")
	}
	seen := 0
	for _, root := range roots {
		if !filepath.IsAbs(root) {
			continue // oci says which field is wrong
		}
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if seen++; seen > maxDeviceFiles {
				return fmt.Errorf("more than %d files are below the directories of devices; name the devices: %w", maxDeviceFiles, ErrInvalid)
			}
			if err != nil {
				return nil
			}
			// What a container gets of its own is not the node's.
			if d.IsDir() && root == "/dev" && (path == "/dev/pts" || path == "/dev/shm" || path == "/dev/mqueue" || path == "/dev/hugepages") {
				return fs.SkipDir
			}
			if d.IsDir() || path == "/dev/console" && root == "/dev" {
				return nil
			}
			if d.Type()&fs.ModeSymlink != 0 && root == "/dev" {
				return nil
			}
			_ = add(path)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("container config: devices: list %s: %w", root, err)
		}
	}
	return out, nil
}

// readProfile reads the seccomp profile that oci named, if it did.
func readProfile(path string, err error) ([]byte, error) {
	if err != nil {
		return nil, invalid(err)
	}
	if path == "" {
		return nil, nil
	}
	b, err := readRegular(path, profileLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s does not exist on this node: %w", path, ErrInvalid)
	case err != nil:
		err = fmt.Errorf("read profile: %w", err)
	case len(b) > profileLimit:
		err = fmt.Errorf("%s has more than %d bytes: %w", path, profileLimit, ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("linux.security_context.seccomp.localhost_ref: %w", err)
	}
	return b, nil
}

// readRegular reads a file that a request names, one byte more than limit at most. What is no file is not waited for: a
// FIFO may have no writer, and a device no end.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", path, ErrInvalid)
	}
	return io.ReadAll(io.LimitReader(f, limit+1))
}

func parseSignal(name string) (unix.Signal, bool) {
	if name == "" {
		return 0, false
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return unix.Signal(n), true
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	sig := unix.SignalNum(name)
	return sig, sig != 0
}
