package image

import (
	"context"
	"errors"
	"sync"

	"github.com/cri-mini/cri-mini/image/unpack"
	"github.com/cri-mini/cri-mini/image/worker"
)

// unpacker is what unpacks the layers of one pull: a worker process, started with the first layer that is not there. A
// layer that another pull waits for, too, may outlast this one, and its worker with it.
type unpacker struct {
	command worker.Command

	mu    sync.Mutex
	proc  *worker.Worker
	users int // layers in progress
	left  bool
}

func (u *unpacker) apply(ctx context.Context, dir string, b unpack.Blob, limits unpack.Limits) (unpack.Info, error) {
	if u.command.Path == "" {
		return unpack.Apply(ctx, dir, b, limits)
	}
	proc, err := u.enter()
	if err != nil {
		return unpack.Info{}, errors.Join(err, b.Content.Close())
	}
	info, err := proc.Apply(ctx, dir, b, limits)
	return info, errors.Join(err, u.exit())
}

func (u *unpacker) enter() (*worker.Worker, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.proc == nil {
		proc, err := worker.Start(u.command)
		if err != nil {
			return nil, err
		}
		u.proc = proc
	}
	u.users++
	return u.proc, nil
}

func (u *unpacker) exit() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users--
	return u.closeUnused()
}

// leave says that the pull is over.
func (u *unpacker) leave() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left = true
	return u.closeUnused()
}

func (u *unpacker) closeUnused() error {
	if u.users > 0 || !u.left || u.proc == nil {
		return nil
	}
	proc := u.proc
	u.proc = nil
	return proc.Close()
}
