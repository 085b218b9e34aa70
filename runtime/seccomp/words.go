//go:build cgo

package seccomp

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Linked says that libseccomp is in this program.
const Linked = true

// operators are those of config.json in the library's words.
var operators = map[specs.LinuxSeccompOperator]lib.ScmpCompareOp{
	specs.OpNotEqual:     lib.CompareNotEqual,
	specs.OpLessThan:     lib.CompareLess,
	specs.OpLessEqual:    lib.CompareLessOrEqual,
	specs.OpEqualTo:      lib.CompareEqual,
	specs.OpGreaterEqual: lib.CompareGreaterEqual,
	specs.OpGreaterThan:  lib.CompareGreater,
	specs.OpMaskedEqual:  lib.CompareMaskedEqual,
}

// action is a word for what happens, with the least of libseccomp and of the
// kernel that know it.
type action struct {
	act   lib.ScmpAction
	level uint // API level, seccomp_api_get(3)
	needs string
}

var actions = map[specs.LinuxSeccompAction]action{
	specs.ActKill:        {act: lib.ActKillThread},
	specs.ActKillThread:  {act: lib.ActKillThread},
	specs.ActKillProcess: {act: lib.ActKillProcess, level: 3, needs: "libseccomp 2.4.0 and Linux 4.14"},
	specs.ActTrap:        {act: lib.ActTrap},
	specs.ActErrno:       {act: lib.ActErrno},
	specs.ActTrace:       {act: lib.ActTrace},
	specs.ActAllow:       {act: lib.ActAllow},
	specs.ActLog:         {act: lib.ActLog, level: 3, needs: "libseccomp 2.4.0 and Linux 4.14"},
	specs.ActNotify:      {act: lib.ActNotify, level: 6, needs: "libseccomp 2.5.0 and Linux 5.7"},
}

// Highest values behind an action: an errno(3) as the kernel lets it out, and
// what the wrapper takes for a tracer.
const (
	maxErrno = 4095
	maxTrace = 1<<15 - 1
)

// actionOf turns an action with its errno into the library's. field leads errors.
func actionOf(field string, word specs.LinuxSeccompAction, errno *uint) (lib.ScmpAction, error) {
	a, ok := actions[word]
	if !ok {
		return 0, fmt.Errorf("%s: unknown action %q", field, word)
	}
	if a.level > 0 {
		if level, _ := lib.GetAPI(); level < a.level {
			return 0, fmt.Errorf("%s: %s needs %s; this is libseccomp %s", field, word, a.needs, LibraryVersion())
		}
	}
	value, most := uint(unix.EPERM), uint(maxErrno)
	if errno != nil {
		value = *errno
	}
	switch a.act {
	case lib.ActErrno:
	case lib.ActTrace:
		most = maxTrace
	default:
		if errno != nil {
			return 0, fmt.Errorf("%s: %s takes no errno, but %d is given", field, word, *errno)
		}
		return a.act, nil
	}
	if value > most {
		return 0, fmt.Errorf("%s: errno %d of %s is above %d", field, value, word, most)
	}
	return a.act.SetReturnCode(int16(value)), nil
}

// loadFlags turns the profile's flags into those of seccomp(2). A profile that
// does not speak of flags gets SPEC_ALLOW, as runc does: without it the kernel
// may switch speculative store bypass off, which costs far more than the filter.
// TSYNC has nothing to do, for init has one thread when it loads the filter.
func loadFlags(flags []specs.LinuxSeccompFlag) (uint32, error) {
	if flags == nil {
		return flagSpecAllow, nil
	}
	var set uint32
	for i, f := range flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			set |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			set |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			set |= flagWaitKillableRecv
		case "SECCOMP_FILTER_FLAG_TSYNC":
		default:
			return 0, fmt.Errorf("flags[%d]: unknown flag %q", i, f)
		}
	}
	return set, nil
}

// Words tells what Compile takes.
func Words() Known {
	k := Known{Flags: []string{string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), "SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagWaitKillableRecv)}}
	level, _ := lib.GetAPI()
	for word, a := range actions {
		if a.level <= level {
			k.Actions = append(k.Actions, string(word))
		}
	}
	for word := range operators {
		k.Operators = append(k.Operators, string(word))
	}
	for arch := range tokens {
		k.Archs = append(k.Archs, wordOf(arch))
	}
	k.Archs = append(k.Archs, wordOf(lib.ArchX32)) // which shares the token of x86_64
	for _, list := range [][]string{k.Actions, k.Operators, k.Archs, k.Flags} {
		slices.Sort(list)
	}
	return k
}

// LibraryVersion is the version of libseccomp that is linked in or loaded.
func LibraryVersion() string {
	major, minor, micro := lib.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// APILevel is what libseccomp and this kernel can do together (seccomp_api_get(3)); 0 means not even filters.
func APILevel() uint {
	level, _ := lib.GetAPI()
	return level
}

// CheckLibrary reports at the start of a program what would otherwise be found
// at the first container: a shared libseccomp that is too old.
func CheckLibrary() error {
	major, minor, _ := lib.GetLibraryVersion()
	if major < 2 || major == 2 && minor < 4 {
		return fmt.Errorf("libseccomp %s is too old; 2.4.0 is needed, and 2.5.0 for fast filters", LibraryVersion())
	}
	return nil
}
