package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

var errEOF = errors.New("init closed the sync socket")

// fdsPerMessage is how many descriptors cross a barrier in one message; SCM_MAX_FD is 253.
const fdsPerMessage = 128

// barrier meets init. The message is the op's index and a status, with descriptors if the barrier carries any.
func (r *run) barrier(ctx context.Context, op *plan.Op) error {
	if r.sync == nil {
		return errors.New("barrier without a process")
	}
	first, n := int(int64(op.Num[1])), int(op.Num[2])
	if op.Num[0] == plan.InitWaits {
		return r.release(first, n)
	}
	for got := 0; ; {
		index, fds, err := r.receive(ctx)
		if errors.Is(err, errEOF) {
			return r.failure()
		}
		if err != nil {
			return err
		}
		if index != r.next || got+len(fds) > n {
			closeAll(fds)
			return fmt.Errorf("init is at op %d with %d descriptors, want op %d with %d", index, len(fds), r.next, n)
		}
		for _, fd := range fds {
			r.fds[first+got] = fd
			got++
		}
		if got == n {
			break
		}
	}
	if op.Str[0] == plan.BarrierConsole && r.onConsole != nil {
		return r.onConsole(r.fds[first])
	}
	return nil
}

// release lets init go on. An empty slot, of an optional tree, crosses as the plan's own descriptor, which init tells
// from a tree by its not being O_PATH.
func (r *run) release(first, n int) error {
	for i := first; i < first+n; i++ {
		if r.fds[i] < 0 {
			r.fds[i], _ = unix.FcntlInt(uintptr(r.fds[plan.SlotPlan]), unix.F_DUPFD_CLOEXEC, 0)
		}
	}
	var msg [8]byte
	binary.LittleEndian.PutUint32(msg[:], uint32(r.next))
	for {
		k := min(n, fdsPerMessage)
		var oob []byte
		if k > 0 {
			oob = unix.UnixRights(r.fds[first : first+k]...)
		}
		if err := r.send(msg[:], oob); err != nil {
			if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
				return r.failure()
			}
			return fmt.Errorf("release init: %w", err)
		}
		first, n = first+k, n-k
		if n == 0 {
			return nil
		}
	}
}

func (r *run) send(msg, oob []byte) error {
	raw, err := r.sync.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), msg, oob, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}

// receive waits for init's next message; errEOF when init has ended or execed.
func (r *run) receive(ctx context.Context) (index int, fds []int, err error) {
	if r.direct {
		if err := r.pollSync(ctx); err != nil {
			return 0, nil, err
		}
	}
	end := r.sync // which may be closed and forgotten while that function begins to run
	stop := context.AfterFunc(ctx, func() { _ = end.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := r.sync.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var msg [8]byte
	oob := make([]byte, unix.CmsgSpace(4*fdsPerMessage))
	var n, oobn int
	var recvErr error
	err = raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, recvErr = unix.Recvmsg(int(fd), msg[:], oob, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(recvErr, unix.EAGAIN)
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil, fmt.Errorf("wait for init: %w", context.Cause(ctx))
	}
	if err = errors.Join(err, recvErr); err != nil && !errors.Is(err, unix.ECONNRESET) {
		return 0, nil, fmt.Errorf("wait for init: %w", err)
	}
	if n == 0 || err != nil {
		return 0, nil, errEOF
	}
	fds = parseRights(oob[:oobn])
	if n != len(msg) {
		closeAll(fds)
		return 0, nil, fmt.Errorf("init sent %d bytes, want %d", n, len(msg))
	}
	return int(binary.LittleEndian.Uint32(msg[:])), fds, nil
}

// pollSync waits for something to receive in this thread: to come back from the poller of Go takes another one.
func (r *run) pollSync(ctx context.Context) error {
	raw, err := r.sync.SyscallConn()
	if err != nil {
		return err
	}
	ready := 0
	for ready == 0 && err == nil {
		if ctx.Err() != nil {
			return fmt.Errorf("wait for init: %w", context.Cause(ctx))
		}
		// The context is looked at now and then.
		cerr := raw.Control(func(fd uintptr) { ready, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100) })
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
		err = errors.Join(cerr, err)
	}
	if err != nil {
		return fmt.Errorf("wait for init: %w", err)
	}
	return nil
}

func parseRights(oob []byte) []int {
	var fds []int
	if cmsgs, err := unix.ParseSocketControlMessage(oob); err == nil {
		for i := range cmsgs {
			if got, err := unix.ParseUnixRights(&cmsgs[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// clone makes the plan's memory file, the progress page and the sync socket, and starts init with them and
// with every slot filled so far.
func (r *run) clone(ctx context.Context, op *plan.Op) error {
	encoded, err := r.plan.Encode()
	if err != nil {
		return err
	}
	if r.fds[plan.SlotPlan], err = memfd("plan", encoded); err != nil {
		return err
	}
	if r.page == nil { // a Command brings one that outlives this process
		if r.page, err = linux.NewSharedPage("progress"); err != nil {
			return err
		}
	}
	if r.fds[plan.SlotProgress], err = unix.FcntlInt(r.page.File().Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return fmt.Errorf("share progress page: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make sync socket: %w", err)
	}
	_ = unix.SetNonblock(pair[0], true)
	r.sync, r.fds[plan.SlotSync] = os.NewFile(uintptr(pair[0]), "sync"), pair[1]

	req := spawnRequest{flags: op.Num[0]}
	for slot, fd := range r.fds {
		if fd >= 0 {
			req.slots, req.fds = append(req.slots, int32(slot)), append(req.fds, fd)
		}
	}
	if r.child, err = r.spawner.spawn(ctx, req); err != nil {
		return err
	}
	// Our copy of init's end would hide its death.
	_ = unix.Close(r.fds[plan.SlotSync])
	r.fds[plan.SlotSync] = -1
	if r.onClone != nil {
		return r.onClone(r.child)
	}
	return nil
}

// memfd makes a sealed memory file with the content.
func memfd(name string, content []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("make memory file %s: %w", name, err)
	}
	for off := 0; off < len(content); {
		n, err := unix.Pwrite(fd, content[off:], int64(off))
		if err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("write memory file %s: %w", name, err)
		}
		off += n
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("seal memory file %s: %w", name, err)
	}
	return fd, nil
}
