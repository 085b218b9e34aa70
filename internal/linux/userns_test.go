package linux

import (
	"errors"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNewUserNS: the namespace has the maps, outlives the process that it began with, and that is reaped.
func TestNewUserNS(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("writes the maps of a user namespace: must be root")
	}
	began := 0
	f, err := NewUserNS(func(pid int) error {
		began = pid
		dir := "/proc/" + strconv.Itoa(pid)
		return errors.Join(os.WriteFile(dir+"/uid_map", []byte("0 1000 1\n"), 0), os.WriteFile(dir+"/gid_map", []byte("0 2000 1\n"), 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Kill(began, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is still there: %v", began, err)
	}
	if typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); typ != unix.CLONE_NEWUSER || err != nil {
		t.Errorf("it is of type %#x, %v", typ, err)
	}
	bad := errors.New("bad map")
	if _, err := NewUserNS(func(pid int) error { began = pid; return bad }); !errors.Is(err, bad) {
		t.Errorf("with a map that cannot be written: %v", err)
	}
	if err := unix.Kill(began, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is still there: %v", began, err)
	}
}
