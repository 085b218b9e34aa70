// Package crash kills cri-mini where it hurts and looks at what is left. It has tests only: the daemon is driven over
// its socket as kubelet drives it, and killed after every journal record that a pod's life writes; a node reboots;
// daemon and monitors die under containers that print; a journal is damaged.
//
// Each test runs itself again on a machine of its own (test/private: namespaces, cgroups, directories), where all that
// is there can be listed. Invariant: what a test says is gone, it has looked for in such a list, not in what the daemon
// says.
package crash
