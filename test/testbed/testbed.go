// Package testbed is what tests are told about the machine that they run on, by two variables:
//
//	CRI_MINI_TEST_SLOW  how many times slower than a usual machine it is: every limit of time is so much longer
//	CRI_MINI_TEST_BIN   a directory with the built programs, where there is no Go to build them
//
// The test node sets both (docs/testing.md). Only tests import it, and it imports nothing of this module.
package testbed

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	slowEnv = "CRI_MINI_TEST_SLOW"
	binEnv  = "CRI_MINI_TEST_BIN"
)

// Limit is how long a test waits here for what a usual machine does within d.
func Limit(d time.Duration) time.Duration {
	factor, err := strconv.Atoi(cmp.Or(os.Getenv(slowEnv), "1"))
	if err != nil || factor < 1 {
		panic(fmt.Sprintf("%s=%q: not a whole number from 1", slowEnv, os.Getenv(slowEnv)))
	}
	return d * time.Duration(factor)
}

// Programs puts the named programs of cmd/ into a directory: built as the Makefile does, since those in bin may be of
// another day, or taken from where they were built for the tests.
func Programs(dir string, names ...string) error {
	if bin := os.Getenv(binEnv); bin != "" {
		for _, name := range names {
			if err := os.Symlink(filepath.Join(bin, name), filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("take program: %w", err)
			}
		}
		return nil
	}
	for _, name := range names {
		cgo := "1"
		if name == "mini-runc" { // and mini-runc-full is the same with libseccomp
			cgo = "0"
		}
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "netgo,osusergo", "-ldflags", "-s -w -extldflags -static",
			"-o", filepath.Join(dir, name), "github.com/cri-mini/cri-mini/cmd/"+strings.TrimSuffix(name, "-full"))
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
