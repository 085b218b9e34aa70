// Package netns connects pods to the network and disconnects them.
//
// It owns the choice of the network (Config.Mode), the conversation with CNI
// plugins through libcni, and the built-in network, which is a CNI plugin too
// but runs inside the daemon (netns/bridge). It does not own the network
// namespaces: the caller makes, pins and drops them. Only sandbox and the
// commands may import it.
//
// One invariant: an Attachment is self-contained. It records the conflist and
// the arguments it was made with, and Detach and Check use the record, never
// what the configuration directory or the built-in network's pod CIDR is today.
//
// # The life of an attachment
//
//	att, err := n.Prepare(request)   // decides, touches nothing
//	journal.Intend(att)              // the caller's: now a crash can be undone
//	err = n.Attach(ctx, att)         // again, after a crash or an error: same result
//	…                                // att.IPs, att.Result: record them as well
//	err = n.Detach(ctx, att)         // any number of times, with the namespace or without
//	drop the network namespace
//	err = n.WaitGone(ctx, att)       // the host's end of the veth is gone
//
// After a failed Attach call Detach: CNI asks for a DEL then.
//
// # Modes
//
// ModeBuiltin uses the built-in network. ModeCNI uses the first valid file of
// Config.ConfDir, and without one the network is not ready. ModeAuto is built-in
// until the first valid file appears and CNI from then on; that choice is stored
// and outlives the daemon and the file. Pods that were attached before stay
// attached as they were. docs/network.md is the user's page.
package netns
