// Package worker unpacks layers in a process of their own: what a registry sends is decompressed and read as a tar where
// there is no network, no file beside the store's half-made layers, and little else to be had. It owns that process, the
// messages to it, and its confinement; image imports it.
//
// One process serves one pull, and ends with it. The daemon connects to registries and pipes blobs into it, since it
// alone has credentials; the worker writes the layer's directory and answers with its unpack.Info.
//
//	daemon                                  worker
//	  control socket ── request, 2 fds ──▶   one goroutine a layer
//	  blob pipe      ── bytes ───────────▶   decompress, verify, unpack into tmp/
//	  result pipe    ◀─ answer, then EOF ─
//
// Confinement (confine.go), each left out only where the kernel lacks it:
//   - Landlock: no file but below the store's tmp directory (a worker's root would otherwise reach all of the disk);
//   - seccomp: no socket, no mount, no exec, no namespace, no ptrace, no bpf …: what file work and the Go runtime need;
//   - capabilities: owners, modes, devices, extended attributes; no_new_privs;
//   - the first to be killed when memory is short.
//
// Invariant: when Apply returns, nothing writes into the layer's directory any more. A worker that is taken over can
// still say a false diff id of what it unpacks; image verify finds that out.
package worker
