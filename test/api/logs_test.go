package api

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestTrapLogFormatAndLastLine(t *testing.T) {
	n := start(t)
	p := n.runPod("logs")
	long := 40000
	c := p.run("main", fmt.Sprintf("echo one; echo two >&2; echo; head -c %d /dev/zero | tr '\\0' x; echo; printf 'no end'", long))
	c.mustEnd(0, "Completed")
	var out, last string
	var lines []string
	tags := ""
	for _, e := range entries(t, c.log) {
		if e.stream == "stderr" {
			if e.text != "two" || e.tag != "F" {
				t.Errorf("stderr has %v", e)
			}
			continue
		}
		if len(e.text) > 16<<10 {
			t.Errorf("an entry of %d bytes", len(e.text))
		}
		tags += e.tag
		if out += e.text; e.tag == "F" {
			lines = append(lines, out)
			out = ""
		}
		last = e.text
	}
	if want := []string{"one", "", strings.Repeat("x", long)}; fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("%d lines, the first of %.50q, tags %s", len(lines), lines, tags)
	}
	if !strings.HasSuffix(tags, "P") || last != "no end" || out != "no end" {
		t.Errorf("a last line without its end is %q, tags %s", last, tags)
	}
}

func TestTerminalLog(t *testing.T) {
	n := start(t)
	p := n.runPod("tty")
	c := p.run("main", "test -t 0 && test -t 1 && test -t 2 && echo terminal; echo to stderr >&2; printf 'no end'", func(c *criapi.ContainerConfig) {
		c.Tty, c.Stdin = true, true
	})
	c.mustEnd(0, "Completed")
	text := ""
	for _, e := range entries(t, c.log) {
		if text += strings.TrimSuffix(e.text, "\r"); e.tag == "F" {
			text += "\n"
		}
		if e.stream != "stdout" {
			t.Errorf("a terminal has one stream: %v", e)
		}
	}
	if text != "terminal\nto stderr\nno end" {
		t.Errorf("the log has %q", text)
	}
}

// TestTrapReopenedLogLosesNothing: of lines written all the while, none is lost and none comes twice.
func TestTrapReopenedLogLosesNothing(t *testing.T) {
	n := start(t)
	p := n.runPod("reopen")
	c := p.run("main", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); [ $((i % 100)) = 0 ] && usleep 100000; done; echo end")
	reopen := func() error {
		_, err := n.Runtime.ReopenContainerLog(n.ctx(), &criapi.ReopenContainerLogRequest{ContainerId: c.id})
		return err
	}
	var rotated []string
	for i := range 5 {
		before, _ := os.ReadFile(c.log)
		until(t, "the log does not grow", func() bool {
			now, _ := os.ReadFile(c.log)
			return len(now) > len(before)
		})
		old := fmt.Sprintf("%s.%d", c.log, i)
		if err := os.Rename(c.log, old); err != nil {
			t.Fatal(err)
		}
		rotated = append(rotated, old)
		if err := reopen(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(c.log); err != nil {
			t.Errorf("after the reopening: %v", err)
		}
	}
	c.mustEnd(0, "Completed")
	next := 0
	for _, file := range append(rotated, c.log) {
		for _, e := range entries(t, file) {
			if want := fmt.Sprintf("line %d", next); e.text != want && e.text != "end" || e.tag != "F" {
				t.Fatalf("%s has %v, want %s", filepath.Base(file), e, want)
			}
			next++
		}
	}
	if next != 3001 {
		t.Errorf("%d lines of 3001", next)
	}
	mustFail(t, reopen(), codes.FailedPrecondition, c.id, "does not run")
}

func TestNoLog(t *testing.T) {
	n := start(t)
	p := n.runPod("no-log")
	c := p.run("main", "i=0; while [ $i -lt 5000 ]; do echo a line that nobody wants to keep; i=$((i+1)); done", func(c *criapi.ContainerConfig) { c.LogPath = "" })
	c.mustEnd(0, "Completed")
	if st := c.status(); st.LogPath != "" {
		t.Errorf("log path %q", st.LogPath)
	}
	files, _ := os.ReadDir(p.config.LogDirectory)
	if len(files) > 0 {
		t.Errorf("there is a log: %v", files)
	}
}

// TestLogThatIsNoFile: what lies at the log's path, put there by a pod that has the node's log directory, neither stops
// the monitor, which serves other pods too, nor gets the output.
func TestLogThatIsNoFile(t *testing.T) {
	n := start(t)
	p := n.runPod("no-file")
	c := p.run("main", "while sleep 0.01; do echo tick; done")
	away := filepath.Join(p.config.LogDirectory, "away")
	for name, put := range map[string]func(path string) error{
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"device":    func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"link":      func(path string) error { return os.Symlink(away, path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(p.config.LogDirectory, name+".log")
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			d := p.create(name, "echo hello")
			_, err := n.Runtime.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: d.id})
			mustFail(t, err, codes.Unknown, "open log "+path)

			if err := os.Rename(c.log, c.log+".before-"+name); err != nil {
				t.Fatal(err)
			}
			if err := put(c.log); err != nil {
				t.Fatal(err)
			}
			_, err = n.Runtime.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: c.id})
			mustFail(t, err, codes.Unknown, "open log "+c.log)
			if err := os.Remove(c.log); err != nil {
				t.Fatal(err)
			}
			if _, err = n.Runtime.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: c.id}); err != nil {
				t.Errorf("when the path is free again: %v", err)
			}
			c.says("tick")
		})
	}
	if _, err := os.Lstat(away); err == nil {
		t.Error("the output followed a link")
	}
}
