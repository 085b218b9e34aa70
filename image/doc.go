// Package image pulls, loads, lists and removes images and lends their layers to containers.
//
// It is the front of image/registry (where images come from), image/unpack (how a layer becomes a directory) and
// image/store (what is on disk), and joins them: reference → manifest for this platform → layers fetched and unpacked
// side by side → one commit. Package cri and sandbox import it; the packages below it are its own.
// Invariant: an image is listed only when every layer of it is unpacked, verified and on disk. A call that fails leaves
// nothing but finished layers for the next try, and not even those if the image itself was at fault.
package image
