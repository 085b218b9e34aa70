package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// systemdSocket is systemd's own D-Bus socket: root reaches it without a bus
// daemon, and before one runs.
const systemdSocket = "/run/systemd/private"

// ErrNoSystemd means that systemd does not answer.
var ErrNoSystemd = errors.New("systemd cannot be reached")

// busLimit is how long systemd may take for one thing; it needs milliseconds.
const busLimit = 30 * time.Second

// bus is the way to systemd. A connection is made for each thing that is asked
// of it, in about 0.3 ms: on a standing one systemd would tell of everything that
// happens to all of its units, and close it when it re-executes itself.
type bus struct{ socket string }

// session is one connection.
type session struct {
	conn *dbus.Conn
	jobs chan *dbus.Signal // of JobRemoved and all else that systemd tells
}

// ask connects and has f ask one thing.
func (b *bus) ask(ctx context.Context, f func(context.Context, *session) error) error {
	ctx, cancel := context.WithTimeout(ctx, busLimit)
	defer cancel()
	s, err := b.connect(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoSystemd, err)
	}
	defer func() { _ = s.conn.Close() }()
	return f(ctx, s)
}

func (b *bus) connect(ctx context.Context) (*session, error) {
	// The context closes the connection: a systemd that hangs accepts it, and says nothing.
	conn, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(b.socket), dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, jobs: make(chan *dbus.Signal, 16)}
	conn.Signal(s.jobs)
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("authenticate at %s: %w", b.socket, err)
	}
	return s, nil
}

// Names of systemd's interface (org.freedesktop.systemd1(5)).
const (
	busName    = "org.freedesktop.systemd1"
	busManager = "org.freedesktop.systemd1.Manager"
	jobRemoved = busManager + ".JobRemoved"
)

func (s *session) manager() dbus.BusObject {
	return s.conn.Object(busName, "/org/freedesktop/systemd1")
}

// call asks what is done when the answer comes.
func (s *session) call(ctx context.Context, method string, args ...any) error {
	return s.manager().CallWithContext(ctx, busManager+"."+method, 0, args...).Err
}

// job asks what systemd does as a job, and waits for its end. The end may be told
// before the answer that names the job was looked at.
func (s *session) job(ctx context.Context, method string, args ...any) error {
	answer := make(chan *dbus.Call, 1)
	s.manager().GoWithContext(ctx, busManager+"."+method, 0, answer, args...)
	ended := map[dbus.ObjectPath]string{}
	var job dbus.ObjectPath
	for {
		select {
		case call := <-answer:
			if err := call.Store(&job); err != nil {
				return err
			}
			answer = nil
		case signal, ok := <-s.jobs:
			if !ok {
				return fmt.Errorf("%w: it closed the connection", ErrNoSystemd)
			}
			if path, result, ok := endOfJob(signal); ok {
				ended[path] = result
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for systemd: %w", context.Cause(ctx))
		}
		if result, ok := ended[job]; ok && result == "done" {
			return nil
		} else if ok {
			return fmt.Errorf("systemd's job ended as %q", result)
		}
	}
}

func endOfJob(signal *dbus.Signal) (path dbus.ObjectPath, result string, ok bool) {
	if signal.Name != jobRemoved || len(signal.Body) != 4 {
		return "", "", false
	}
	path, ok1 := signal.Body[1].(dbus.ObjectPath)
	result, ok2 := signal.Body[3].(string)
	return path, result, ok1 && ok2
}

// version is systemd's, 0 for one that cannot be read.
func (s *session) version() int {
	v, err := s.manager().GetProperty(busManager + ".Version")
	text, _ := v.Value().(string)
	if err != nil {
		return 0
	}
	return leadingNumber(text)
}

// leadingNumber reads 252 out of "252.39-1~deb12u1" and "v252".
func leadingNumber(text string) int {
	text = strings.TrimPrefix(text, "v")
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		text = text[:end]
	}
	n, _ := strconv.Atoi(text)
	return n
}

// isError tells one of systemd's errors by its name.
func isError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

const (
	errNoUnit     = "org.freedesktop.systemd1.NoSuchUnit"
	errUnitExists = "org.freedesktop.systemd1.UnitExists"
)
