package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// Name is the first argument by which a program knows that it is to be a worker.
const Name = "cri-mini-unpack"

// Main is the worker's main function, if the arguments are those of one: it does not return then.
func Main() {
	if len(os.Args) < 2 || os.Args[0] != Name {
		return
	}
	err := main(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, Name+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func main(args []string) error {
	if len(args) == 1 {
		return confine(args[0])
	}
	if err := filter(); err != nil {
		return err
	}
	return serve()
}

// serve takes requests until the daemon closes its end.
func serve() error {
	var layers sync.WaitGroup
	defer layers.Wait()
	body, rights := make([]byte, maxRequest), make([]byte, unix.CmsgSpace(2*4))
	for {
		n, rn, _, _, err := unix.Recvmsg(controlFD, body, rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read request: %w", err)
		case n == 0:
			return nil
		}
		blob, result, err := files(rights[:rn])
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		var r request
		if err := json.Unmarshal(body[:n], &r); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		layers.Go(func() { r.serve(blob, result) })
	}
}

func files(rights []byte) (blob, result *os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, nil, err
	}
	if len(msgs) != 1 {
		return nil, nil, errors.New("no descriptors")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 2 {
		return nil, nil, fmt.Errorf("%d descriptors: %w", len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), "blob"), os.NewFile(uintptr(fds[1]), "result"), nil
}

// serve unpacks one layer. The daemon that gives up closes the blob's pipe.
func (r *request) serve(blob, result *os.File) {
	var clock unpack.Clock
	info, err := unpack.Apply(context.Background(), r.Dir, unpack.Blob{
		Content: blob, Digest: r.Digest, Size: r.Size, DiffID: r.DiffID, Keep: r.Keep, Clock: &clock,
	}, r.Limits)
	a := answer{Info: info, Decompress: clock.Decompress.Load(), Write: clock.Write.Load()}
	if err != nil {
		a.Error, a.Corrupt = err.Error(), errors.Is(err, unpack.ErrCorrupt)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			a.Errno = int(errno)
		}
	}
	_ = json.NewEncoder(result).Encode(a) // a daemon that is gone needs no answer
	result.Close()
}
