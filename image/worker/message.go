package worker

import (
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// controlFD is where the worker process has its end of the control socket.
const controlFD = 3

// request is one layer. It comes with two descriptors: the blob's pipe and the one for the answer.
type request struct {
	Dir    string        `json:"dir"`
	Keep   string        `json:"keep"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	DiffID digest.Digest `json:"diffID"`
	Limits unpack.Limits `json:"limits"`
}

// maxRequest bounds a request's JSON in bytes; it has two paths and two digests.
const maxRequest = 16 << 10

// answer is what the worker says of a layer, up to the end of the pipe.
type answer struct {
	Info    unpack.Info `json:"info"`
	Error   string      `json:"error,omitempty"`
	Corrupt bool        `json:"corrupt,omitempty"` // the error is unpack.ErrCorrupt
	Errno   int         `json:"errno,omitempty"`   // the system call's, in the error
	// Nanoseconds in each stage, see unpack.Clock. Fetch is the daemon's to know.
	Decompress int64 `json:"decompress"`
	Write      int64 `json:"write"`
}

// maxAnswer bounds an answer in bytes: its lists have a path for each directory of a layer at the most.
const maxAnswer = 1 << 30

// remoteError keeps the words of the worker and the sentinels that callers ask for.
type remoteError struct {
	words string
	is    []error
}

func (e *remoteError) Error() string   { return e.words }
func (e *remoteError) Unwrap() []error { return e.is }

// ErrDied says that the worker ended in the middle of its work.
var ErrDied = errors.New("the unpacking process died")
