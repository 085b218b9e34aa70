// Package unpack turns one layer blob into a directory that overlayfs can use as a lower layer.
//
// It owns the tar dialect of container layers: whiteouts, opaque directories, hard links, extended attributes. It needs
// no parent layer: what only the parent could tell (the attributes of directories that the tar does not list, hard links
// to files below) is recorded in Info, for image/store to settle when the image is put together. image and image/store
// import it.
// Invariant: nothing outside the target directory is read or written, whatever the tar says. Every path is walked one
// component at a time by directory fds with O_NOFOLLOW; symlinks are resolved here, inside the layer's root. No string
// with a slash that came from a tar ever reaches the kernel, except as the text of a symlink.
package unpack

// Version is part of a layer's identity in the store. Raise it when the same tar would give a different directory.
const Version = 2
