// Package journal keeps the list of kernel objects that belong to one pod, so
// that whatever ends the daemon, its successor knows what to undo.
//
// It owns the per-pod journal file, usually on a tmpfs under /run, and the tomb,
// the directory on disk that remembers pods across a reboot. runtime/engine,
// sandbox and the programs may import it; it imports runtime/plan and nothing
// else of this module.
//
// Invariant: a kernel object exists only if an intent for it is in the file.
// Callers keep it by this order, which is the whole protocol:
//
//	j.Intend(obj)   // 1. written down
//	make(obj)       // 2. made
//	unmake(obj)     // 3. unmade
//	j.Release(obj)  // 4. crossed out
//
// A crash after 1 or 3 leaves an intent without an object, a crash after 2 an
// intent with one. Both look the same to the successor, hence every release of
// an object must succeed when the object is already gone.
//
// # The file
//
// One record a line: eight hexadecimal digits of CRC-32C over the rest of the
// line, a space, a JSON object, a newline. It can be read with cat and mended
// with an editor. The first record names the pod and the format version.
// An append is one write(2) on an O_APPEND descriptor and no fsync: tmpfs has
// nothing to sync to, and a journal does not outlive the boot it was written in.
//
// SIGKILL can cut a write between two pages, so the last line may lack its end:
// Open cuts such a tail off, for the object it announced was never made. Any
// other damage is a [CorruptError]; guessing could lose an object.
//
// One process at a time may have a journal open; the caller sees to that with
// its own lock.
package journal
