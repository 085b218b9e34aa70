// Package oci turns what the kubelet asks for into what a runtime runs: a CRI
// pod or container config, an image's config and the facts about the machine
// go in, a config.json (runtime-spec 1.3) comes out. It owns every default and
// every refusal that can be decided from these alone: the security context,
// namespaces, mounts, devices, resources, users, and the contents of the
// pod's resolv.conf, hosts and hostname.
//
// sandbox, image and cmd may import it; of this repository it imports only
// runtime/host, for the facts as a value.
//
// Invariant: every function is pure. No file, clock, environment variable or
// system call has a say, so the same input gives the same bytes on any
// machine, and the golden files in testdata hold for all of them. What must be
// looked up on the node (device numbers, a seccomp profile, the image's passwd
// file) is handed in as data.
package oci
