//go:build !cgo

package seccomp

import (
	"errors"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Linked says that libseccomp is in this program.
const Linked = false

var errNotLinked = errors.New("defaultAction: this program was built without libseccomp")

func compile(*specs.LinuxSeccomp) (*Filter, error) { return nil, errNotLinked }

// Words tells what Compile takes, nothing without the library.
func Words() Known { return Known{} }

// LibraryVersion is the version of libseccomp, "none" without it.
func LibraryVersion() string { return "none" }

// APILevel is what the library and the kernel can do, 0 without the library.
func APILevel() uint { return 0 }

// CheckLibrary reports that there is none.
func CheckLibrary() error { return errNotLinked }
