package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const paxXattr = "SCHILY.xattr." // the PAX keyword that GNU tar, libarchive and Go write extended attributes with

// setXattrs sets the entry's extended attributes through set (setxattr, lsetxattr or fsetxattr).
//
// Overlayfs's own are refused: they would let a layer redirect a name to any other in the stack, or hide files that a
// scanner has seen. What this file system or file type cannot hold is left out and counted, as other runtimes do.
func (u *unpacker) setXattrs(path string, set func(path, name string, value []byte, flags int) error, hdr *tar.Header) error {
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			return refuse("extended attribute %q belongs to overlayfs", name)
		}
		err := set(path, name, []byte(value), 0)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user."):
			// EPERM: xattr(7) allows user.* on regular files and directories only.
			u.info.NoXattr++
		default:
			return fmt.Errorf("set extended attribute %q: %w", name, err)
		}
	}
	return nil
}
