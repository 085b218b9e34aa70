// Package admin is what an operator asks of a daemon beside the CRI: images with progress, pulls that run, archives,
// verification, mounts. It owns the HTTP interface on run_dir/admin.sock, server and client, and no state.
//
// Every answer is JSON. A call that takes long answers with one JSON document a line (application/x-ndjson), each an
// Event; the last one has an image or an error. The socket is root's alone: whoever may connect may do everything.
// cmd/cri-mini imports it, the server for the daemon, the client for its commands.
// Invariant: a failed call says so in its status, or, once lines were written, in the last of them. A stream without
// such a last line was cut off.
package admin
