package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/cri-mini/cri-mini/runtime/seccomp"
)

// fullName is this program with libseccomp in it. That takes cgo, whose start costs more than most commands do, and
// is asked for rarely: a profile is compiled once.
const fullName = "mini-runc-full"

// needLibrary goes on as the full program, with the same command line from its beginning: nothing may have been
// changed on the machine yet. It returns at once in that program, and else only with an error.
func needLibrary() error {
	if seccomp.Linked {
		return nil
	}
	path := helper(fullName)
	if err := syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ()); err != nil {
		return fmt.Errorf("execute %s, which has libseccomp: %w", path, err)
	}
	return nil
}

// libraryKey tells one build of the full program from another, and with it the library.
func libraryKey() string {
	path, err := os.Executable()
	if err == nil && !seccomp.Linked {
		path = helper(fullName)
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d bytes of %d", info.Size(), info.ModTime().UnixNano())
}
