package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// Probe finds the facts out. It takes about a millisecond, starts no process and
// changes nothing; calls are tried rather than derived from the version where a
// try is cheap, since vendors backport them. It fails only when /proc or the
// cgroup mounts cannot be read, for nothing works then.
func Probe() (Facts, error) {
	var f Facts
	var err error
	if f.Kernel, err = probeKernel(); err != nil {
		return Facts{}, fmt.Errorf("probe kernel release: %w", err)
	}
	mountinfo, err := readFile("/proc/self/mountinfo")
	if err == nil {
		f.Cgroup, err = probeCgroup(mountinfo)
	}
	if err != nil {
		return Facts{}, fmt.Errorf("probe cgroups: %w", err)
	}
	f.Resctrl = resctrlMount(mountinfo)
	if err = f.probeRights(); err != nil {
		return Facts{}, fmt.Errorf("probe own rights: %w", err)
	}
	f.probeMachine()
	f.probeMounts()
	f.probeNamespaces()
	f.probeSecurity()
	f.SwapAccounting = f.Cgroup.swapAccounting()
	return f, nil
}

func probeKernel() (Kernel, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Kernel{}, err
	}
	return parseRelease(unix.ByteSliceToString(uts.Release[:]))
}

// parseRelease reads "6.18.44-vendor", and "6.19-rc1" too.
func parseRelease(release string) (Kernel, error) {
	var k Kernel
	if n, _ := fmt.Sscanf(release, "%d.%d", &k.Major, &k.Minor); n != 2 {
		return Kernel{}, fmt.Errorf("release %q does not begin with two numbers", release)
	}
	return k, nil
}

// probeRights reads what this process may do and may pass on.
func (f *Facts) probeRights() error {
	bounding, err := linux.Bounding()
	if err != nil {
		return err
	}
	effective, permitted, _, err := linux.Capabilities()
	if err != nil {
		return err
	}
	f.Caps = bounding & permitted
	f.LastCap = int(readUint("/proc/sys/kernel/cap_last_cap", unix.CAP_LAST_CAP))
	f.CanLowerOOM = effective&(1<<unix.CAP_SYS_RESOURCE) != 0
	var nofile unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &nofile); err != nil {
		return fmt.Errorf("read the open files limit: %w", err)
	}
	f.NofileHard = nofile.Max
	adj, err := readFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	f.OOMScoreAdj, err = strconv.Atoi(string(bytes.TrimSpace(adj)))
	return err
}

func (f *Facts) probeMachine() {
	f.Arch = runtime.GOARCH
	f.PageSize = os.Getpagesize()
	f.CPUs = runtime.NumCPU()
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		f.MemoryBytes = uint64(info.Totalram) * uint64(info.Unit)
	}
	f.BootID = readLine("/proc/sys/kernel/random/boot_id")
	var st unix.Statfs_t
	f.RunTmpfs = unix.Statfs("/run", &st) == nil && st.Type == unix.TMPFS_MAGIC
	entries, _ := os.ReadDir("/sys/kernel/mm/hugepages")
	for _, e := range entries {
		if size, ok := hugepageName(e.Name()); ok {
			f.HugepageSizes = append(f.HugepageSizes, size)
		}
	}
	slices.Sort(f.HugepageSizes)
}

// hugepageName turns "hugepages-2048kB" into the "2MB" of the hugetlb files, by
// the rule of the kernel's mem_fmt (mm/hugetlb_cgroup.c).
func hugepageName(dir string) (string, bool) {
	text, ok := strings.CutPrefix(dir, "hugepages-")
	text, isKB := strings.CutSuffix(text, "kB")
	kb, err := strconv.ParseUint(text, 10, 64)
	switch {
	case !ok || !isKB || err != nil:
		return "", false
	case kb >= 1<<20:
		return fmt.Sprintf("%dGB", kb>>20), true
	case kb >= 1<<10:
		return fmt.Sprintf("%dMB", kb>>10), true
	}
	return fmt.Sprintf("%dKB", kb), true
}

// probeMounts tries the mount calls whose abilities grew over time. What it
// opens is a context that is never created, so nothing is mounted.
func (f *Facts) probeMounts() {
	if ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC); err == nil {
		// Where overlay still has the interface of mount(2), as in 6.1, the kernel keeps any key for it, unread.
		unread := unix.FsconfigSetString(ctx, "cri-mini", "no such key") == nil
		f.OverlayLowerdirPlus = !unread && unix.FsconfigSetString(ctx, "lowerdir+", "/") == nil
		if dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			f.OverlayLayerFD = f.OverlayLowerdirPlus && unix.FsconfigSetFd(ctx, "lowerdir+", dir) == nil
			unix.Close(dir)
		}
		unix.Close(ctx)
	} else { // no CAP_SYS_ADMIN here, or the module is not loaded yet
		f.OverlayLowerdirPlus = f.AtLeast(6, 7)
		f.OverlayLayerFD = f.AtLeast(6, 13)
	}
	// The kernel looks at the user namespace descriptor before anything else
	// that could be wrong: EBADF means that it knows the attribute.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: 1 << 30}
	err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &attr)
	f.IdmapMounts = errors.Is(err, unix.EBADF) || errors.Is(err, unix.EPERM) && f.AtLeast(5, 12)
	f.RecursiveReadonly = f.IdmapMounts || f.AtLeast(5, 12)
}

func (f *Facts) probeNamespaces() {
	f.UserNS = exists("/proc/self/ns/user") && readUint("/proc/sys/user/max_user_namespaces", 1) > 0
	f.TimeNS = exists("/proc/self/ns/time")
	f.CgroupNS = exists("/proc/self/ns/cgroup")
	// The exit status (6.15) cannot be tried without a process that dies, so
	// the call (6.13) is tried and the version decides.
	if pidfd, err := unix.PidfdOpen(os.Getpid(), 0); err == nil {
		_, err = linux.PidfdInfo(pidfd)
		f.PidfdInfo = err == nil && f.AtLeast(6, 15)
		unix.Close(pidfd)
	}
}

func (f *Facts) probeSecurity() {
	if list := readLine("/sys/kernel/security/lsm"); list != "" {
		f.LSMs = strings.Split(list, ",")
	}
	f.AppArmor = strings.HasPrefix(readLine("/sys/module/apparmor/parameters/enabled"), "Y") &&
		exists("/sys/kernel/security/apparmor")
	f.SELinux = exists("/sys/fs/selinux/enforce")
	// A filter at address 0: EFAULT says that the kernel wanted to read it.
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0)
	f.Seccomp = errors.Is(err, unix.EFAULT)
	f.SeccompActions = strings.Fields(readLine("/proc/sys/kernel/seccomp/actions_avail"))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readLine returns a one-line file without its newline, "" when it is not there.
func readLine(path string) string {
	data, _ := readFile(path)
	return string(bytes.TrimSpace(data))
}

// readUint returns the number in a file, or fallback.
func readUint(path string, fallback uint64) uint64 {
	n, err := strconv.ParseUint(readLine(path), 10, 64)
	if err != nil {
		return fallback
	}
	return n
}
