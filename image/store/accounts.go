package store

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// MaxAccounts bounds what is kept of /etc/passwd and of /etc/group; longer files are cut after a whole line.
const MaxAccounts = 1 << 20

// account reads a file as a container would see it, for the record. Missing, dangling or no regular file: empty, since
// an image need not have any accounts.
func (st stack) account(p string) ([]byte, error) {
	if len(st) == 0 {
		return nil, nil
	}
	h, _, err := st.resolve(len(st)-1, p, true)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if h.kind() != unix.S_IFREG {
		return nil, nil
	}
	fd, err := st.open(h, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxAccounts+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxAccounts {
		data = data[:bytes.LastIndexByte(data[:MaxAccounts], '\n')+1]
	}
	return data, nil
}
