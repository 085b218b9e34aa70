package monitor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/test/testbed"
)

// A container whose pipe is full of a line without its end would wait for ever: with O_DIRECT after 16 writes of a few
// bytes, with the smallest pipe after a page.
func TestLineThatFillsThePipe(t *testing.T) {
	for _, tc := range []struct {
		name   string
		part   string
		change func(fd int) error
	}{
		{"packets", "12345", func(fd int) error {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_DIRECT)
			return err
		}},
		{"a page", strings.Repeat("x", 4000), func(fd int) error {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 4096)
			return err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{fifoStdout, fifoStderr} {
				if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fd, err := unix.Open(filepath.Join(dir, fifoStdout), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := tc.change(fd); err != nil {
				t.Fatal(err)
			}
			const parts = 200
			text := carry(t, dir, func() {
				for range parts {
					_, _ = unix.Write(fd, []byte(tc.part))
				}
				_, _ = unix.Write(fd, []byte("end\n"))
			})
			if want := strings.Repeat(tc.part, parts) + "end"; text != want {
				t.Errorf("the log has %d bytes of the line, want %d", len(text), len(want))
			}
		})
	}
}

// The start of a line is seen, then the writer fills the pipe: it holds the line's end by now, and no line is cut.
func TestPipeThatFillsBehindTheLook(t *testing.T) {
	const line, lines = "0123456789abcdef\n", 400_000
	dir := t.TempDir()
	for _, name := range []string{fifoStdout, fifoStderr} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(filepath.Join(dir, fifoStdout), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	carry(t, dir, func() {
		for rest := []byte(strings.Repeat(line, lines)); len(rest) > 0; { // in pages, as stdio writes them
			n, err := unix.Write(fd, rest[:min(4096, len(rest))])
			if err != nil {
				return
			}
			rest = rest[n:]
		}
	})
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for entry := range strings.Lines(string(b)) {
		if !strings.HasSuffix(entry, " stdout F "+line) {
			t.Fatalf("after %d lines: %q", whole, entry)
		}
		whole++
	}
	if whole != lines {
		t.Errorf("%d lines, want %d", whole, lines)
	}
}

// carry lets a monitor write a log until the writer is done and the container has ended, and gives its one line.
func carry(t *testing.T, dir string, writer func()) string {
	t.Helper()
	m, err := newMonitor(-1)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{stdin: -1}
	log := filepath.Join(dir, "log")
	errs, err := unix.Open(filepath.Join(dir, fifoStderr), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(errs)
	if err := m.openLogs(p, log, dir); err != nil {
		t.Fatal(err)
	}
	defer m.closeStreams(p)
	done := make(chan struct{})
	go func() { writer(); close(done) }()
	// A step waits no longer than the next deadline: that of a process without a group, which is killed in vain.
	m.procs["tick"] = &process{pidfd: -1, deadline: time.Now()}
	for end := time.Now().Add(testbed.Limit(10 * time.Second)); ; {
		if err := m.step(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			m.drainStreams(p)
			return lineOf(t, log)
		default:
		}
		if time.Now().After(end) {
			t.Fatal("the writer waits still for room in its pipe")
		}
	}
}

// lineOf joins the parts of the only line of a log.
func lineOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for entry := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(entry, "\n"), " ", 4)
		text.WriteString(f[3])
		if f[2] == "F" {
			break
		}
	}
	return text.String()
}
