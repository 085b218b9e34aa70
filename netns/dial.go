package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
)

// Dial connects to a TCP port of a pod's loopback, 127.0.0.1 and then ::1. Path is that of its network namespace; ""
// is the node's own. Only the making of a socket needs a visit to the namespace, but the address comes with it: the
// connection is made by a goroutine whose thread dies with it.
func Dial(ctx context.Context, path string, port uint16) (net.Conn, error) {
	if path == "" {
		return dialLoopback(ctx, port)
	}
	type answer struct {
		conn net.Conn
		err  error
	}
	ch := make(chan answer, 1)
	linux.GoThread(func() {
		a := answer{err: enter(path)}
		if a.err == nil {
			a.conn, a.err = dialLoopback(ctx, port)
		}
		ch <- a
	})
	a := <-ch
	return a.conn, a.err
}

func enter(path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// dialLoopback tries one literal address after the other: a name would be resolved, and a list of addresses dialled, by
// other goroutines on other threads.
func dialLoopback(ctx context.Context, port uint16) (net.Conn, error) {
	var d net.Dialer
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
