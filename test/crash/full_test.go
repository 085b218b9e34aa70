package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// bigEnv is an environment of so many variables of 128 KiB, the most that execve(2) takes in one string.
func bigEnv(variables int) (env []*criapi.KeyValue) {
	for i := range variables {
		env = append(env, &criapi.KeyValue{Key: fmt.Sprintf("BIG%d", i), Value: bytes.Repeat([]byte("x"), 120<<10)})
	}
	return env
}

// TestBigEnvironment: what execve(2) takes at most, several ConfigMaps of the largest size, is run and survives a
// restart; more than that is refused with words.
func TestBigEnvironment(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	n.start()
	p := n.runPod(n.podConfig("big"))
	config := containerConfig("a", "echo ${#BIG15}; while :; do sleep 0.05; done")
	config.Envs = bigEnv(16)
	c := p.create(config)
	c.start()
	c.says("122880")
	n.restart()
	c.mustRun()
	if r := c.exec(5, "echo ${#BIG0}"); string(r.Stdout) != "122880\n" {
		t.Errorf("exec after the restart: %q %q", r.Stdout, r.Stderr)
	}
	config = containerConfig("b", "exit 0")
	config.Envs = bigEnv(40)
	_, err := n.rt.CreateContainer(t.Context(), &criapi.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "too large") {
		t.Errorf("CreateContainer with 4.7 MiB of environment: %.300v", err)
	}
	c.remove()
	p.remove()
	n.mustBeEmpty()
}

// limitSpace puts a tmpfs of so many bytes over a directory, with what is in it.
func limitSpace(t testing.TB, dir string, size int) {
	t.Helper()
	script := `mkdir -p "$1" && mv "$1" "$1.was" && mkdir "$1" && mount -t tmpfs -o size=$2 tmpfs "$1" && cp -a "$1.was/." "$1" && rm -r "$1.was"`
	if out, err := exec.Command("sh", "-ec", script, "limit", dir, strconv.Itoa(size)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// fill takes all space of a directory's file system but so many pages, beside a daemon that may write meanwhile.
func fill(t testing.TB, dir string, pages int) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 100 {
		var st unix.Statfs_t
		if err = unix.Fstatfs(int(f.Fd()), &st); err != nil {
			break
		}
		err = unix.Fallocate(int(f.Fd()), 0, 0, max(1, int64(st.Bavail)-int64(pages))*st.Bsize)
		if !errors.Is(err, unix.ENOSPC) || int64(st.Bavail) <= int64(pages) {
			break
		}
	}
	if err != nil {
		t.Fatalf("fill %s: %v", path, err)
	}
	return func() { _ = os.Remove(path) }
}

// TestFullDirectories: without space in run_dir or state_dir nothing new begins, and the error names the directory; what
// is there can be stopped and removed, with configurations too large for any reserve; and with space again all is well.
func TestFullDirectories(t *testing.T) {
	n := private(t)
	if n == nil {
		return
	}
	limitSpace(t, n.state, 32<<20)
	limitSpace(t, n.run, 32<<20)
	for _, which := range []string{"run_dir", "state_dir"} {
		for _, pages := range []int{0, 1, 3, 6} {
			t.Run(fmt.Sprintf("%s with %d pages", which, pages), func(t *testing.T) {
				n.on(t).start()
				config := n.podConfig("resident")
				config.Annotations = map[string]string{"a": strings.Repeat("x", 200<<10)}
				p := n.runPod(config)
				running, ended := containerConfig("a", "while :; do sleep 0.05; done"), containerConfig("b", "exit 4")
				running.Envs, ended.Envs = bigEnv(8), bigEnv(8)
				c, d := p.create(running), p.create(ended)
				c.start()
				d.start()
				d.mustExit(4, "Error")
				dir := n.run
				if which == "state_dir" {
					dir = n.state
				}
				free := fill(t, dir, pages)
				refused := 0
				for _, err := range n.lap("refused", c) {
					if refused++; !strings.Contains(err.Error(), dir) {
						t.Errorf("the error does not name %s: %v", dir, err)
					}
				}
				c.stop(0)
				c.mustExit(137, "Error")
				d.remove()
				p.stop()
				p.remove()
				n.removeAll("")
				n.mustList(0, 0)
				free()
				if refused == 0 && pages == 0 && which == "run_dir" { // in state_dir a directory alone may need no page
					t.Errorf("a pod was run without space")
				}
				if failed := n.lap("after", nil); len(failed) > 0 {
					t.Errorf("with space again: %v", failed)
				}
				n.mustBeEmpty()
				n.stop()
			})
		}
	}
}
