package engine

import (
	"errors"
	"testing"
)

// TestPrivateAfterItsEnd: calls that outlive their callers come back with an error from an engine that is closed.
func TestPrivateAfterItsEnd(t *testing.T) {
	p := &private{calls: make(chan func()), closed: make(chan struct{})}
	ended := make(chan struct{})
	go func() { p.serve(); close(ended) }()
	mine := errors.New("mine")
	if err := p.do(func() error { return mine }); !errors.Is(err, mine) {
		t.Errorf("do: %v", err)
	}
	p.close()
	<-ended
	if err := p.do(func() error { t.Error("it was done"); return nil }); !errors.Is(err, errClosing) {
		t.Errorf("do after the end: %v", err)
	}
}
