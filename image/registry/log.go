package registry

import (
	"context"
	"io"
	"log/slog"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// withLogger sends the protocol library's logrus lines to slog. They are all of debug worth to us: what matters comes
// back as an error, or is made one by strictHosts.
func withLogger(ctx context.Context, to *slog.Logger) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetFormatter(nothing{})
	if to.Enabled(ctx, slog.LevelDebug) {
		l.SetLevel(logrus.DebugLevel)
		l.AddHook(bridge{to})
	} else {
		l.SetLevel(logrus.PanicLevel)
	}
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

type nothing struct{}

func (nothing) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

type bridge struct{ to *slog.Logger }

func (bridge) Levels() []logrus.Level { return logrus.AllLevels }

func (b bridge) Fire(e *logrus.Entry) error {
	attrs := make([]any, 0, 2*len(e.Data))
	for k, v := range e.Data {
		attrs = append(attrs, k, v)
	}
	b.to.DebugContext(e.Context, "registry: "+e.Message, attrs...)
	return nil
}
