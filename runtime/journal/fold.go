package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// key is what makes a note the same one.
type key struct {
	kind plan.ObjectKind
	name string
}

// entry is a live object and the room its records take.
type entry struct {
	obj     plan.Object
	line    int // bytes of its intent
	release int // bytes that its release will need
}

// note is the latest state written under a key.
type note struct {
	data json.RawMessage
	line int
}

// state is what a sequence of records amounts to.
type state struct {
	pod     string
	objects []*entry // in order of intent
	notes   map[key]note
	header  int // bytes of the first record
	live    int // bytes of the records that still count
	owed    int // bytes that the releases of all live objects will need
}

func newState() state { return state{notes: map[key]note{}} }

// find returns the index of a live object, or -1.
func (s *state) find(obj plan.Object) int {
	return slices.IndexFunc(s.objects, func(e *entry) bool { return e.obj.Same(obj) })
}

// apply folds one record in; n is the length of its line. Releasing or
// forgetting what is not there is harmless: the daemon may have died between
// the act and the record and done both again.
func (s *state) apply(r *record, n int) error {
	k := key{r.Kind, r.Name}
	if first := s.pod == ""; first != (r.Verb == verbPod) {
		return fmt.Errorf("%q record out of place: %q comes first and only once", r.Verb, verbPod)
	}
	if r.Verb != verbPod && (r.Kind == "" || r.Name == "") {
		return fmt.Errorf("%q record has no kind or no name", r.Verb)
	}
	switch r.Verb {
	case verbPod:
		if r.Version != version {
			return fmt.Errorf("format version %d, want %d", r.Version, version)
		}
		if r.Name == "" {
			return errors.New("the first record names no pod")
		}
		s.pod, s.header, s.live = r.Name, n, n
	case verbIntend:
		s.intend(r, n)
	case verbRelease:
		s.release(r.object())
	case verbNote:
		if len(r.Data) == 0 {
			return errors.New("a note has no data")
		}
		s.live += n - s.notes[k].line
		s.notes[k] = note{data: bytes.Clone(r.Data), line: n}
	case verbForget:
		s.live -= s.notes[k].line
		delete(s.notes, k)
	default:
		return fmt.Errorf("unknown record %q", r.Verb)
	}
	return nil
}

// intend keeps the place of an object that is intended again: it may exist
// since the first time, and must be undone in that order.
func (s *state) intend(r *record, n int) {
	e := &entry{
		obj:     plan.Object{Kind: r.Kind, Name: r.Name, Owner: r.Owner, Data: bytes.Clone(r.Data)},
		line:    n,
		release: releaseLen(r, n),
	}
	if i := s.find(e.obj); i >= 0 {
		s.live += n - s.objects[i].line
		s.owed += e.release - s.objects[i].release
		s.objects[i] = e
		return
	}
	s.objects = append(s.objects, e)
	s.live += n
	s.owed += e.release
}

// releaseLen returns at least the length of the release for an intent of n bytes:
// the same without the data, with a word one byte longer.
func releaseLen(intent *record, n int) int {
	return n - len(intent.Data) + len(verbRelease) - len(verbIntend)
}

func (s *state) release(obj plan.Object) {
	if i := s.find(obj); i >= 0 {
		s.live -= s.objects[i].line
		s.owed -= s.objects[i].release
		s.objects = slices.Delete(s.objects, i, i+1)
	}
}

// fold reads a whole journal. It returns the length of what is good, which is
// less than len(data) when the last line was cut off.
func fold(path string, data []byte) (state, int64, error) {
	s := newState()
	err := eachLine(data, func(number int, offset int64, line []byte) error {
		r, err := decode(line)
		if err == nil {
			err = s.apply(r, len(line)+1)
		}
		if err != nil {
			return &CorruptError{Path: path, Line: number, Offset: offset, Err: err}
		}
		return nil
	})
	return s, int64(bytes.LastIndexByte(data, '\n') + 1), err
}

// eachLine calls f for every line that has an end, until f fails.
func eachLine(data []byte, f func(number int, offset int64, line []byte) error) error {
	var offset int64
	for number := 1; ; number++ {
		line, rest, ended := bytes.Cut(data, []byte{'\n'})
		if !ended {
			return nil
		}
		if err := f(number, offset, line); err != nil {
			return err
		}
		offset += int64(len(line)) + 1
		data = rest
	}
}
