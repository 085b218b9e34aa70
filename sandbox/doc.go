// Package sandbox owns the pods: their containers and execs, from the first journal record to the last, across
// restarts of the daemon.
//
// cri/ and cmd/cri-mini import it. It turns CRI messages into specs (oci), specs into plans (runtime/compile),
// has the engine carry them out, and answers with CRI messages again: there are no structs of its own in between.
//
// A pod has one mutex. It is held for changes of state, never while a container is given time to stop or a
// plugin is asked to do something; two are never held at once.
//
// Invariant: what Status and List say is what the journal says. A change is noted in the journal before it is
// told to anybody.
package sandbox
