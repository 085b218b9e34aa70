// Package pull has the tests of cri-mini image pull against the distribution registry, as a node meets registries: with
// TLS, client certificates, basic and token authentication, mirrors, proxies. They need ../../../bin/cri-mini and root.
package pull
