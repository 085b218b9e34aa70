package registry

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// hostsError is a fault in what an operator wrote about a host. No registry is to blame for it.
type hostsError struct{ err error }

func (e *hostsError) Error() string { return e.err.Error() }
func (e *hostsError) Unwrap() error { return e.err }

// strictHosts reads the hosts' files as the library does, but takes one that it cannot read for an error: the library
// logs that and goes on without the file, and a pull that was meant for a mirror would go to the registry it mirrors.
// What it returns is not for several goroutines at once.
func strictHosts(to *slog.Logger, opts config.HostOptions) docker.RegistryHosts {
	faults := &faultHook{}
	ctx := withLogger(context.Background(), to)
	logger := log.G(ctx).Logger
	logger.AddHook(faults)
	logger.SetLevel(max(logger.Level, logrus.ErrorLevel))
	read := config.ConfigureHosts(ctx, opts)
	return func(host string) ([]docker.RegistryHost, error) {
		faults.first = nil
		hosts, err := read(host)
		if err == nil {
			err = faults.first
		}
		if err != nil {
			return nil, &hostsError{fmt.Errorf("configuration of host %s: %w", host, err)}
		}
		return hosts, nil
	}
}

// faultHook keeps the first error that is logged.
type faultHook struct{ first error }

func (*faultHook) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel}
}

func (f *faultHook) Fire(e *logrus.Entry) error {
	if f.first == nil {
		f.first = fmt.Errorf("%s: %v", strings.TrimPrefix(e.Message, "failed to "), e.Data[logrus.ErrorKey])
	}
	return nil
}
