package engine

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// drainGrace is how long an exec's pipes are read after its process has ended, when somebody that it left
// behind still holds them. What was written before the end is in the pipe and needs no waiting.
const drainGrace = 20 * time.Millisecond

// outputs are the pipes of an exec.
type outputs struct {
	writers [2]io.Writer
	ours    [2]*os.File
	theirs  [2]*os.File
	copying sync.WaitGroup
}

func newOutputs(stdout, stderr io.Writer) (*outputs, error) {
	o := &outputs{writers: [2]io.Writer{stdout, stderr}}
	for i := range o.ours {
		if o.writers[i] == nil {
			o.writers[i] = io.Discard
		}
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			o.close()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		_ = unix.SetNonblock(p[0], true)
		o.ours[i], o.theirs[i] = os.NewFile(uintptr(p[0]), "output"), os.NewFile(uintptr(p[1]), "output")
	}
	return o, nil
}

func (o *outputs) child(i int) int { return int(o.theirs[i].Fd()) }

// start closes our copies of the child's ends and copies until the end of file.
func (o *outputs) start() {
	for i := range o.ours {
		_ = o.theirs[i].Close()
		o.copying.Add(1)
		go func() {
			defer o.copying.Done()
			if _, err := io.Copy(o.writers[i], o.ours[i]); err != nil {
				_, _ = io.Copy(io.Discard, o.ours[i]) // the process must not block on a full pipe
			}
		}()
	}
}

// finish waits for what is in the pipes, but not for processes that were left behind.
func (o *outputs) finish() {
	done := make(chan struct{})
	go func() { o.copying.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-time.After(drainGrace):
	}
	for _, f := range o.ours {
		_ = f.SetReadDeadline(time.Now())
	}
	<-done
}

func (o *outputs) close() {
	for i := range o.ours {
		if o.ours[i] != nil {
			_ = o.ours[i].Close()
		}
		if o.theirs[i] != nil {
			_ = o.theirs[i].Close()
		}
	}
}
