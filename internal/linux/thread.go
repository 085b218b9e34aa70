package linux

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// GoThread runs f in a goroutine on a thread of its own, which ends with it: f may enter namespaces, unshare, or drop
// credentials, and nobody else gets the thread. f must not unlock it.
//
// That is what runtime.LockOSThread without an unlock does, except on the process's first thread. The Go runtime cannot
// end that one and parks it for good (runtime.mexit), in whatever namespace it is: the namespace of a pod would live as
// long as this process, and /proc/self, which shows the first thread, would show it. So where the goroutine happens to
// run there, it stays, and another runs f.
func GoThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		GoThread(func() {
			defer close(done)
			f()
		})
		<-done
	}()
}
