package linux

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// landlockRights are the file rights of each ABI version of landlock(7), from version 1 on, but for executing, which a
// process that is about to do that must keep.
var landlockRights = []uint64{
	unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM,
	unix.LANDLOCK_ACCESS_FS_REFER,
	unix.LANDLOCK_ACCESS_FS_TRUNCATE,
}

// Landlock leaves the calling thread, and what it executes, no files but those below dir, and to read those of readable,
// files or directories, of which some may be missing (landlock(7)). What it executes must be among these. Descriptors
// that are open stay usable. The thread must have no_new_privs and be locked to its goroutine. False, without an error:
// this kernel has no Landlock, or it is turned off.
func Landlock(dir string, readable ...string) (bool, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == unix.ENOSYS || errno == unix.EOPNOTSUPP {
		return false, nil
	}
	if errno != 0 {
		return false, fmt.Errorf("ask for the version of landlock: %w", errno)
	}
	var rights uint64
	for _, r := range landlockRights[:min(int(version), len(landlockRights))] {
		rights |= r
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rights}
	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return false, fmt.Errorf("create landlock ruleset: %w", errno)
	}
	defer unix.Close(int(ruleset))
	if err := landlockRule(ruleset, dir, rights); err != nil {
		return false, err
	}
	for _, path := range readable {
		if err := landlockRule(ruleset, path, unix.LANDLOCK_ACCESS_FS_READ_FILE); err != nil && !errors.Is(err, unix.ENOENT) {
			return false, err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return false, fmt.Errorf("restrict by landlock: %w", errno)
	}
	return true, nil
}

func landlockRule(ruleset uintptr, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("add landlock rule for %s: %w", path, errno)
	}
	runtime.KeepAlive(&rule)
	return nil
}

// DropBounding leaves the calling thread, and what it executes, no capabilities but those of the set, one bit each
// (capabilities(7)). It needs CAP_SETPCAP; the thread must be locked to its goroutine.
func DropBounding(keep uint64) error {
	have, err := Bounding()
	if err != nil {
		return err
	}
	for c := range uintptr(64) {
		if have&^keep&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}
