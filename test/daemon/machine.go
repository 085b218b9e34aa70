package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cri-mini/cri-mini/test/testbed"
)

// insideEnv is set on the machine of its own: the directory with the programs and the image.
const insideEnv = "CRI_MINI_TEST_PROGRAMS"

// Main is a package's TestMain for tests that share one machine. As root it runs the whole test program again there,
// after building the programs and whatever prepare writes into their directory; inside, and without root, it runs the
// tests: NeedMachine tells them apart. private is the path of test/private.
func Main(m *testing.M, private string, prepare func(dir string) error) int {
	if os.Getenv(insideEnv) != "" || os.Getuid() != 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "cri-mini-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = errors.Join(testbed.Programs(dir, "cri-mini", "cri-mini-init"), prepare(dir))
	}
	var self string
	if err == nil {
		self, err = os.Executable()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare a machine for the tests:", err)
		return 1
	}
	// bash stays PID 1 there, and reaps.
	args := append([]string{"bash", "-c", `"$@"; exit $?`, "test", self}, inner(os.Args[1:])...)
	cmd := exec.Command(private, args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, "run the tests on their machine:", err)
		}
		return 1
	}
	return 0
}

// inner is the command line without what go test gives for its cache: that file is ours to write.
func inner(args []string) []string {
	var out []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-test.testlogfile") {
			out = append(out, a)
		}
	}
	return out
}

// Programs gives the directory of the programs and of what prepare wrote. It skips the test where there is no machine.
func Programs(t testing.TB) string {
	t.Helper()
	dir := os.Getenv(insideEnv)
	if dir == "" {
		t.Skip("needs root: it makes namespaces, cgroups and containers")
	}
	return dir
}

// Scratch gives the machine's own directories: one on disk, one below /run.
func Scratch() (disk, run string, err error) {
	disk, run = os.Getenv("SCRATCH"), os.Getenv("RUN")
	if disk == "" || run == "" {
		return "", "", errors.New("SCRATCH and RUN are not set: this runs inside of test/private only")
	}
	return disk, run, nil
}
