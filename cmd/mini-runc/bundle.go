package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/compile"
	"github.com/cri-mini/cri-mini/runtime/unit"
)

// bundle is a directory with a config.json (runtime-spec, bundle.md).
type bundle struct {
	dir  string
	text []byte
	spec *specs.Spec
}

// openBundle reads the config.json of a bundle; "" is the current directory.
func openBundle(dir string) (*bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b := &bundle{dir: dir, spec: &specs.Spec{}}
	path := filepath.Join(dir, "config.json")
	if b.text, err = os.ReadFile(path); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return b, decodeSpec(path, b.text, b.spec)
}

// linuxOnly stands before a Spec and hides what is for other systems: a decoder is made for every type that a field
// may have, which for those of Windows alone takes longer than to read the file.
type linuxOnly struct {
	*specs.Spec
	Solaris ignored `json:"solaris"`
	Windows ignored `json:"windows"`
	VM      ignored `json:"vm"`
	ZOS     ignored `json:"zos"`
	FreeBSD ignored `json:"freebsd"`
}

// ignored takes any JSON.
type ignored struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (ignored) UnmarshalJSON([]byte) error { return nil }

// decodeSpec reads a config.json.
func decodeSpec(path string, text []byte, spec *specs.Spec) error {
	return decode(path, text, &linuxOnly{Spec: spec})
}

// nameScope writes the whole name of the container's scope into the specification where runc has a default for it, so
// that commands that are not told of systemd find the cgroup by what is kept of the specification.
func (b *bundle) nameScope(id string) error {
	if b.spec.Linux == nil {
		b.spec.Linux = &specs.Linux{}
	}
	p := b.spec.Linux.CgroupsPath
	if p == "" {
		p = ":runc:" + id
	}
	u, err := unit.Parse(p)
	if err != nil || !strings.HasPrefix(p, ":") && !strings.HasPrefix(p, "-:") {
		return err
	}
	b.spec.Linux.CgroupsPath = u.String()
	b.text, err = json.Marshal(b.spec)
	return err
}

// decode reads JSON. Its errors name the file, the place and the field, with what it wants to be.
func decode(path string, text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return fmt.Errorf("%s: something follows the end of the JSON at byte %d", place(path, text, d.InputOffset()), d.InputOffset())
		}
		return nil
	}
	var typ *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &typ) && typ.Field == "":
		return fmt.Errorf("%s: the file is a JSON %s, not an object", place(path, text, typ.Offset), typ.Value)
	case errors.As(err, &typ):
		return fmt.Errorf("%s: %s is a JSON %s at byte %d, want %s", place(path, text, typ.Offset), strings.TrimPrefix(typ.Field, "Spec."), typ.Value, typ.Offset, jsonWord(typ.Type))
	case errors.As(err, &syntax):
		return fmt.Errorf("%s: not JSON at byte %d: %w", place(path, text, syntax.Offset), syntax.Offset, err)
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("%s: the JSON ends too early", path)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// place is file:line:column of a byte offset.
func place(path string, text []byte, offset int64) string {
	before := text[:min(max(offset, 0), int64(len(text)))]
	line := 1 + bytes.Count(before, []byte("\n"))
	return fmt.Sprintf("%s:%d:%d", path, line, len(before)-bytes.LastIndexByte(before, '\n')-1)
}

// jsonWord says what JSON a Go type is written as.
func jsonWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonWord(t.Elem())
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a number from 0 to 2^%d-1", t.Bits())
	}
	return fmt.Sprintf("a whole number of %d bits", t.Bits())
}

// options are those that every plan of this call has.
func (a *app) options(id, bundle string) (compile.Options, error) {
	if err := a.probe(); err != nil {
		return compile.Options{}, err
	}
	return compile.Options{
		ID: id, Container: id, Facts: a.facts, Bundle: bundle, Command: true,
		Seccomp: a.seccomp,
		Warn:    a.log.warn, // "MUST be logged as a warning" (config.md, Linux Process, capabilities)
	}, nil
}
