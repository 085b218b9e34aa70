// Command registry serves an OCI image layout from the distribution registry,
// on a loopback address, and writes the certs.d directory that sends a
// runtime's pulls there. The images get in as anybody's would: pushed over
// HTTP. Nothing outside the machine is ever asked: the mirror is also named as
// the upstream server, so that a missing image is a 404 and not a detour.
//
//	registry --layout DIR [--address 127.0.0.1:5000] [--certs-dir DIR] [--ready FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cri-mini/cri-mini/test/critest/images"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/sirupsen/logrus"
)

type options struct {
	layout, address, root, certsDir, ready string
}

func main() {
	var o options
	flag.StringVar(&o.layout, "layout", "", "OCI image layout to serve")
	flag.StringVar(&o.address, "address", "127.0.0.1:0", "loopback address to listen on; port 0 takes a free one")
	flag.StringVar(&o.root, "root", "", "directory to store in (default: memory)")
	flag.StringVar(&o.certsDir, "certs-dir", "", "write <host>/hosts.toml for every host of the layout below this directory")
	flag.StringVar(&o.ready, "ready", "", "write the address to this file when everything is pushed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	listener, err := listen(ctx, o.address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newHandler(ctx, o.root), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	defer server.Close()

	base := "http://" + listener.Addr().String()
	if o.layout != "" {
		if err := pushLayout(ctx, images.Layout{Dir: o.layout}, base); err != nil {
			return err
		}
		if err := writeHosts(images.Layout{Dir: o.layout}, o.certsDir, base); err != nil {
			return err
		}
	}
	fmt.Println(listener.Addr())
	if o.ready != "" {
		if err := os.WriteFile(o.ready, []byte(listener.Addr().String()+"\n"), 0o644); err != nil {
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// listen refuses any address that others than this machine could reach: the
// registry has no authentication.
func listen(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listen on %s: not a loopback address", address)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// newHandler is the registry itself. It panics on a storage it cannot open,
// as handlers.NewApp does.
func newHandler(ctx context.Context, root string) http.Handler {
	logrus.SetLevel(logrus.ErrorLevel)
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": nil}}
	if root != "" {
		config.Storage = configuration.Storage{"filesystem": {"rootdirectory": root}}
	}
	config.Log.Level = "error"
	config.Log.AccessLog.Disabled = true
	config.HTTP.Secret = "loopback only, nothing to protect"
	return handlers.NewApp(ctx, config)
}
