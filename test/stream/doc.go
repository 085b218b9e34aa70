// Package stream is a client of exec, attach and port forwarding for tests: the protocols of kubectl, crictl and
// kubelet's proxy, with every stream and the connection below in the test's hands. What is copied where, and when
// somebody stops to read or dies, is up to the caller.
package stream
