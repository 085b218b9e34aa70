// Package registry reads manifests and blobs from image registries (OCI distribution-spec 1.1, Docker registry v2).
//
// It owns references, credentials and hosts; containerd's core/remotes/docker does the protocol, so that the
// certs.d/<host>/hosts.toml files that nodes already have keep working. Only image imports it.
// Invariant: every call ends. A registry that stops answering costs Config.StallTimeout per request, never a hung pull,
// and no error text carries a credential or a signed URL.
package registry
