package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// version is the format version in the first record of a journal.
const version = 1

// maxRecord bounds one record in bytes. A container's configuration is the largest
// thing written, and its environment the largest part of that, for a kubelet puts
// whole ConfigMaps of up to 1 MiB into it. execve(2) takes no more than 2 MiB of it
// with the usual stack limit of 8 MiB; in a record these are 2.7.
const maxRecord = 4 << 20

// verb says what a record does to the state that came before it.
type verb string

const (
	verbPod     verb = "pod"     // first record: Name is the pod's id
	verbIntend  verb = "intend"  // Kind and Name come to life
	verbRelease verb = "release" // Kind and Name are gone
	verbNote    verb = "note"    // Data is the latest state of Kind and Name
	verbForget  verb = "forget"  // the note of Kind and Name no longer holds
)

// record is one line of the file. For notes Kind and Name are the note's kind
// and id.
type record struct {
	Verb    verb            `json:"do"`
	Version int             `json:"version,omitempty"`
	Kind    plan.ObjectKind `json:"kind,omitempty"`
	Name    string          `json:"name,omitempty"`
	Owner   string          `json:"owner,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// object returns the object that an intent or a release speaks of.
func (r *record) object() plan.Object {
	return plan.Object{Kind: r.Kind, Name: r.Name, Owner: r.Owner, Data: bytes.Clone(r.Data)}
}

// frame is what stands around the JSON of a record: checksum, space, newline.
const frame = 8 + 1 + 1

// encode returns the line for r. Strings that are not UTF-8 are refused: JSON
// would replace their bytes, and the object could not be found again by name.
func encode(r *record) ([]byte, error) {
	for _, f := range []struct{ name, value string }{
		{"kind", string(r.Kind)}, {"name", r.Name}, {"owner", r.Owner},
	} {
		if !utf8.ValidString(f.value) {
			return nil, fmt.Errorf("encode %s record: %s %q is not valid UTF-8", r.Verb, f.name, f.value)
		}
	}
	var b bytes.Buffer
	b.WriteString("00000000 ")
	e := json.NewEncoder(&b) // ends the line by itself
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encode %s record %s %s: %w", r.Verb, r.Kind, r.Name, err)
	}
	line := b.Bytes()
	if len(line) > maxRecord {
		return nil, fmt.Errorf("encode %s record %s %s: %w: %d bytes are more than the %d of a record",
			r.Verb, r.Kind, r.Name, ErrTooLarge, len(line), maxRecord)
	}
	sum(line[:len(line)-1])
	return line, nil
}

// sum puts the checksum of a line, without its newline, into its first digits.
func sum(line []byte) {
	const digits = "0123456789abcdef"
	c := checksum(line[9:])
	for i := 7; i >= 0; i-- {
		line[i] = digits[c&15]
		c >>= 4
	}
}

// decode reads one line without its newline. A field that this version does not
// know is passed over, so that a daemon can be rolled back; a record that it
// does not know is an error in fold.
func decode(line []byte) (*record, error) {
	if len(line) < frame-1 || line[8] != ' ' {
		return nil, fmt.Errorf("no checksum at the start of the line")
	}
	want, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil {
		return nil, fmt.Errorf("checksum %q is not hexadecimal", line[:8])
	}
	body := line[9:]
	if got := checksum(body); got != uint32(want) {
		return nil, fmt.Errorf("checksum is %08x, the line says %08x", got, want)
	}
	r := new(record)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, err
	}
	return r, nil
}

// CorruptError says that a journal or a tomb record cannot be trusted. The
// daemon moves the file aside ([Tomb.Quarantine]), reports it and goes on.
type CorruptError struct {
	Path   string
	Line   int   // counted from 1; 0 in a tomb record, which has no lines
	Offset int64 // of the line's first byte
	Err    error // what is wrong there
}

func (e *CorruptError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s is corrupt: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s is corrupt at line %d (byte %d): %v", e.Path, e.Line, e.Offset, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }
