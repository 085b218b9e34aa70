package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// Command says how a worker is started.
type Command struct {
	Path string // of the program whose main calls Main
	// Filter is the seccomp filter (an array of struct sock_filter) that the worker loads; Syscalls tells what it must
	// let pass.
	Filter []byte
	// Dir is the only directory whose files the worker can touch; all layers are made below it.
	Dir string
}

// Worker is one process. Its methods may be called concurrently.
type Worker struct {
	cmd     *exec.Cmd
	control *os.File
	done    chan struct{} // closed when the process is reaped
	users   sync.WaitGroup
}

// Start starts the process.
func Start(c Command) (*Worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket of the unpacking process: %w", err)
	}
	here, there := os.NewFile(uintptr(pair[0]), "worker"), os.NewFile(uintptr(pair[1]), "worker")
	defer there.Close()
	w := &Worker{control: here, done: make(chan struct{})}
	w.cmd = &exec.Cmd{
		Path: c.Path, Args: []string{Name, c.Dir}, Env: []string{"GOGC=50"}, Dir: "/", ExtraFiles: []*os.File{there}, Stderr: os.Stderr,
		// Its pull ends with the daemon, and so does it: its end of the socket is closed then.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := w.cmd.Start(); err != nil {
		here.Close()
		return nil, fmt.Errorf("start unpacking process: %w", err)
	}
	go func() { _ = w.cmd.Wait(); close(w.done) }() // how it ended is asked of ProcessState
	if _, err := unix.Write(pair[0], c.Filter); err != nil {
		return nil, errors.Join(fmt.Errorf("confine unpacking process: %w", err), w.Close())
	}
	return w, nil
}

// Apply is unpack.Apply in the process. An error of the blob's content itself comes through.
func (w *Worker) Apply(ctx context.Context, dir string, b unpack.Blob, limits unpack.Limits) (unpack.Info, error) {
	w.users.Add(1)
	defer w.users.Done()
	blob, result, err := w.send(request{Dir: dir, Keep: b.Keep, Digest: b.Digest, Size: b.Size, DiffID: b.DiffID, Limits: limits})
	if err != nil {
		b.Content.Close()
		return unpack.Info{}, err
	}
	f := feed(ctx, blob, b)
	a, err := w.receive(result)
	if fed := f.end(); fed != nil { // why the worker got no more: the reason of whatever it says
		return unpack.Info{}, fmt.Errorf("unpack layer %s (diff id %s): %w", b.Digest, b.DiffID, fed)
	}
	if err != nil {
		return unpack.Info{}, fmt.Errorf("unpack layer %s (diff id %s): %w", b.Digest, b.DiffID, err)
	}
	if b.Clock != nil {
		b.Clock.Decompress.Add(a.Decompress)
		b.Clock.Write.Add(a.Write)
	}
	return a.Info, a.err()
}

func (a *answer) err() error {
	if a.Error == "" {
		return nil
	}
	e := &remoteError{words: a.Error}
	if a.Corrupt {
		e.is = append(e.is, unpack.ErrCorrupt)
	}
	if a.Errno != 0 {
		e.is = append(e.is, syscall.Errno(a.Errno))
	}
	return e
}

// pipeSize of a blob's pipe, in bytes: what a root may have without asking for more (/proc/sys/fs/pipe-max-size).
const pipeSize = 1 << 20

// send passes a request on and keeps the other ends of its pipes.
func (w *Worker) send(r request) (blob, result *os.File, err error) {
	blobRead, blob, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer blobRead.Close()
	result, resultWrite, err := os.Pipe()
	if err != nil {
		blob.Close()
		return nil, nil, err
	}
	defer resultWrite.Close()
	_, _ = unix.FcntlInt(blobRead.Fd(), unix.F_SETPIPE_SZ, pipeSize) // else it has 64 KiB, and takes more switches
	body, err := json.Marshal(r)
	if err == nil {
		err = unix.Sendmsg(int(w.control.Fd()), body, unix.UnixRights(int(blobRead.Fd()), int(resultWrite.Fd())), nil, unix.MSG_NOSIGNAL)
	}
	if err != nil {
		blob.Close()
		result.Close()
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			err = w.death()
		}
		return nil, nil, fmt.Errorf("ask unpacking process: %w", err)
	}
	return blob, result, nil
}

// receive waits for the answer, and so until the worker has let go of the layer's directory.
func (w *Worker) receive(result *os.File) (a answer, err error) {
	defer result.Close()
	err = json.NewDecoder(io.LimitReader(result, maxAnswer)).Decode(&a)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return a, w.death()
	}
	return a, err
}

// death words the end of a worker that still had work.
func (w *Worker) death() error {
	select {
	case <-w.done:
		return fmt.Errorf("%w: %s", ErrDied, w.cmd.ProcessState)
	case <-time.After(5 * time.Second):
		return ErrDied
	}
}

// Close lets the worker end when its last layer has, and waits for that.
func (w *Worker) Close() error {
	w.users.Wait()
	err := w.control.Close()
	select {
	case <-w.done:
	case <-time.After(10 * time.Second):
		err = errors.Join(err, errors.New("the unpacking process does not end: killed"), w.cmd.Process.Kill())
		<-w.done
	}
	return err
}
