// Command worker is the worker of the tests, with a probe of its confinement.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/worker"
)

func main() {
	if len(os.Args) == 3 && os.Args[0] == worker.Name {
		if err := probe(os.Args[1]); !errors.Is(err, os.ErrNotExist) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	worker.Main()
}

// probe tries, in the confined process, what a worker that was taken over would. It is done where the test has put a
// file "probe", and writes there what came of it.
func probe(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "probe"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	outside := filepath.Join(dir, "..", "escaped")
	_, read := os.ReadFile("/etc/passwd")
	_, list := os.ReadDir("/")
	write := os.WriteFile(outside, nil, 0o644)
	rename := os.Rename(filepath.Join(dir, "probe"), outside)
	inside := os.WriteFile(filepath.Join(dir, "inside"), nil, 0o644)
	admin, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_NET_ADMIN, 0, 0, 0)
	noNew, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	refused := func(err error) bool { return errors.Is(err, os.ErrPermission) }
	_, err = fmt.Fprintf(f, "read %v\nlist %v\nwrite %v\nrename %v\ninside %v\nnet_admin=%d no_new_privs=%d\n",
		refused(read), refused(list), refused(write), rename != nil, inside == nil, admin, noNew)
	return err
}
