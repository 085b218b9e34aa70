package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY gives both ends of a terminal (pts(4)).
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return master, slave
}

// person types at a terminal and reads from it.
type person struct {
	t      *testing.T
	master *os.File
	read   chan string
	seen   string
}

func sitDown(t *testing.T, master *os.File) *person {
	p := &person{t: t, master: master, read: make(chan string, 100)}
	go func() {
		defer close(p.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			p.read <- string(buf[:n])
		}
	}()
	return p
}

// expect waits for words on the screen and gives all that stood before and with them.
func (p *person) expect(words string) string {
	p.t.Helper()
	for timeout := time.After(patience); ; {
		if i := strings.Index(p.seen, words); i >= 0 {
			before := p.seen[:i+len(words)]
			p.seen = p.seen[i+len(words):]
			return before
		}
		select {
		case s, ok := <-p.read:
			p.seen += s
			if !ok && !strings.Contains(p.seen, words) {
				p.t.Fatalf("the terminal closed without %q: %q", words, p.seen)
			}
		case <-timeout:
			p.t.Fatalf("no %q on the terminal: %q", words, p.seen)
		}
	}
}

func (p *person) types(line string) {
	p.t.Helper()
	_, err := p.master.WriteString(line + "\n")
	must(p.t, err)
}

// TestTutorial is what every introduction to runc does: a root file system from busybox, spec, run, with a
// terminal, by hand. The cgroup is the default one, named after the container.
func TestTutorial(t *testing.T) {
	b := newBundle(t, "")
	id := "mini-runc-test-" + filepath.Base(b.dir)
	b.spec.Linux.CgroupsPath = "/" + id // for the check only: the file has none
	for _, name := range []string{"ls", "stty", "tty", "touch", "hostname", "ps", "id", "grep"} {
		must(t, os.Link(filepath.Join(b.dir, "rootfs/bin/busybox"), filepath.Join(b.dir, "rootfs/bin", name)))
	}
	b.ok("spec")
	b.fails("config.json exists. Remove it first", "spec")

	master, slave := openPTY(t)
	defer master.Close()
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 101}))
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	must(t, err)
	cmd := b.command("run", id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	p := sitDown(t, master)
	p.expect("/ # ")
	for _, step := range []struct{ types, sees string }{
		{"stty size", "33 101\r\n"},
		{"tty", "/dev/pts/0\r\n"},
		{"hostname", "runc\r\n"},
		{"touch /x", "touch: /x: Read-only file system\r\n"},
		{"echo $$", "1\r\n"},
		{"echo $((6 * 7))", "42\r\n"},
		{"grep -c : /proc/net/dev", "1\r\n"}, // the loopback of a network namespace of its own
	} {
		p.types(step.types)
		p.expect(step.types + "\r\n") // the echo
		if got := p.expect("/ # "); !strings.HasPrefix(got, step.sees) {
			t.Errorf("%s: got %q, want %q", step.types, got, step.sees)
		}
	}
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 60}))
	for deadline := time.Now().Add(patience); ; { // SIGWINCH takes its way through mini-runc
		p.types("stty size; echo the''n")
		if said := p.expect("\r\nthen\r\n"); strings.Contains(said, "20 60\r\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the terminal does not get the size of ours")
		}
	}
	p.types("/bin/busybox sh -c 'echo go\"\"ing; exec /bin/busybox sleep 100'")
	p.expect("\r\ngoing\r\n")
	_, err = master.WriteString("\x03") // Ctrl-C goes to what runs in the container
	must(t, err)
	p.expect("/ # ")
	p.types("exit 3")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("run: %v", err)
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	must(t, err)
	if *before != *after {
		t.Errorf("the terminal was %+v and is %+v", *before, *after)
	}
	slave.Close()
}
