// Package umoci holds images against a judge from outside: the same OCI layout, unpacked by Debian's umoci and loaded
// and mounted by us, must be the same tree: names, types, modes, owners, devices, extended attributes, hard links, times,
// content. What differs is in a case's list with the reason; a difference that is not there fails, and so does a reason
// for which there is no difference any more.
package umoci
