package unpack

import (
	"errors"
	"fmt"
	"net/url"
)

// ErrCorrupt says that a blob is not what its manifest promised, or holds something that a layer must not.
var ErrCorrupt = errors.New("corrupt or hostile image data")

// Info is what the unpacked directory itself does not tell. It is kept as JSON beside the directory.
type Info struct {
	Size    int64 `json:"size"`    // bytes on disk, counted in blocks of 4096
	Inodes  int64 `json:"inodes"`  // inodes made, the root included
	Entries int64 `json:"entries"` // entries that the tar had; 0 is an empty layer
	Tar     int64 `json:"tar"`     // bytes of the uncompressed tar; 0 if it was not read from a blob
	// OpaqueRoot says that the layer hides everything below it. Overlayfs does not honour trusted.overlay.opaque on a
	// layer's root, so the layers below must be left out.
	OpaqueRoot bool `json:"opaqueRoot,omitempty"`
	// Implied lists directories that an entry needed and the tar did not list: their attributes are those of the layer
	// below, if it has them. "." is the root.
	Implied []Path `json:"implied,omitempty"`
	// Hiding lists directories with whiteouts. Overlayfs does not filter them out of a directory that it merges with
	// none: ls(1) would show names that nobody can stat.
	Hiding []Path `json:"hiding,omitempty"`
	// Links are hard links whose target is not in this layer, in order of the tar.
	Links []Link `json:"links,omitempty"`
	// NoXattr counts extended attributes that this file system cannot hold.
	NoXattr int64 `json:"noXattr,omitempty"`
}

// Link is a hard link to a file of a layer below.
type Link struct {
	Name   Path `json:"name"`
	Target Path `json:"target"`
}

// Path is a slash-separated path relative to the layer's root, without "." or "..", in the tar's own bytes. In JSON it
// is percent-escaped, because names in layers need not be UTF-8.
type Path string

// MarshalText implements encoding.TextMarshaler.
func (p Path) MarshalText() ([]byte, error) {
	return []byte((&url.URL{Path: string(p)}).EscapedPath()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Path) UnmarshalText(b []byte) error {
	s, err := url.PathUnescape(string(b))
	*p = Path(s)
	return err
}

// entryError names the tar entry that something went wrong with.
func entryError(name string, err error) error {
	if len(name) > 300 {
		name = name[:300] + "…"
	}
	return fmt.Errorf("entry %q: %w", name, err)
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}
