package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cri-mini/cri-mini/runtime/engine"
)

// logger writes what callers of runc read: with --log a file of records, each with time, level and msg, as text
// or as JSON; without, JSON records go to standard error. The error that ends a call goes there in any case. An op
// that failed is told by the fields op, object and errno too.
type logger struct {
	format string
	debug  bool
	file   io.Writer
}

func (l *logger) open(path string) error {
	if l.format == "" {
		l.format = "text"
	}
	if l.format != "text" && l.format != "json" {
		return fmt.Errorf("invalid log-format: %q; there are text and json", l.format)
	}
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
	if err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	l.file = f
	return nil
}

// field is one key with its value, in order.
type field struct {
	key   string
	value any
}

// records gives the writer of records, nil for a person who reads standard error.
func (l *logger) records() io.Writer {
	if l.file == nil && l.format == "json" {
		return os.Stderr
	}
	return l.file
}

func (l *logger) fail(err error) {
	msg := strings.ReplaceAll(err.Error(), "\n", "; ") // errors that were joined
	if l.records() != os.Stderr {
		fmt.Fprintln(os.Stderr, "mini-runc:", msg)
	}
	if l.records() == nil {
		return
	}
	var more []field
	var op *engine.OpError
	if errors.As(err, &op) {
		more = append(more, field{"op", op.Index}, field{"object", op.Summary})
		if errno := op.Errno(); errno != 0 {
			more = append(more, field{"errno", int(errno)})
		}
	}
	l.record("error", msg, more...)
}

func (l *logger) warn(msg string) {
	if l.records() == nil {
		fmt.Fprintln(os.Stderr, "mini-runc: warning:", msg)
		return
	}
	l.record("warning", msg)
}

func (l *logger) debugf(format string, args ...any) {
	if !l.debug {
		return
	}
	if l.records() == nil {
		fmt.Fprintf(os.Stderr, "mini-runc: "+format+"\n", args...)
		return
	}
	l.record("debug", fmt.Sprintf(format, args...))
}

func (l *logger) record(level, msg string, more ...field) {
	fields := append([]field{{"level", level}, {"msg", msg}, {"time", time.Now().Format(time.RFC3339)}}, more...)
	var b strings.Builder
	if l.format == "json" {
		for i, f := range fields {
			b.WriteByte("{,"[min(i, 1)])
			value, _ := json.Marshal(f.value)
			fmt.Fprintf(&b, "%q:%s", f.key, value)
		}
		b.WriteString("}\n")
	} else {
		fields[0], fields[1], fields[2] = fields[2], fields[0], fields[1]
		for i, f := range fields {
			b.WriteString(" "[:min(i, 1)])
			b.WriteString(f.key + "=" + quoted(fmt.Sprint(f.value)))
		}
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(l.records(), b.String())
}

func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\n\"=\\:") {
		return strconv.Quote(s)
	}
	return s
}
