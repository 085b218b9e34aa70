package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// ErrFull says that the file system has no room for one more object. Nothing was
// written and nothing must be made. Releases still work: their room was set
// aside when the object was intended.
var ErrFull = errors.New("no space left for the journal")

// ErrTooLarge says that one record alone is more than the journal takes.
// Nothing was written.
var ErrTooLarge = errors.New("too large")

// ErrEmpty says that the daemon died while it created the journal: no object can
// exist. It is an [fs.ErrNotExist] too, because the caller does the same for
// both, it removes what directory there is.
var ErrEmpty = fmt.Errorf("journal is empty: %w", fs.ErrNotExist)

// Journal is one pod's open journal. Its methods may be called at the same time.
type Journal struct {
	path string

	mu sync.Mutex
	state
	file  *os.File // nil once closed
	size  int64    // length of the file, all of it good
	alloc int64    // up to here the file system has promised room
	// tryAt is the number of dead bytes above which the file is written anew.
	tryAt  int64
	broken error // why the file takes no more records
}

// Create begins the journal of a pod. The directory must exist, the file must
// not ([fs.ErrExist]). Without room it returns [ErrFull] and leaves no file.
func Create(path, podID string) (*Journal, error) {
	if podID == "" {
		return nil, fmt.Errorf("create journal %s: no pod id", path)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", asFull(err))
	}
	j := &Journal{path: path, state: newState(), file: file, tryAt: compactAt}
	if err := j.add(&record{Verb: verbPod, Version: version, Name: podID}); err != nil {
		file.Close()
		os.Remove(path)
		return nil, err
	}
	return j, nil
}

// Open reads a journal and continues it. The errors are [fs.ErrNotExist] (also
// [ErrEmpty]) and [CorruptError]; see [Salvage] for what can be had of the
// latter.
func Open(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j, err := open(file, path)
	if err != nil {
		file.Close()
		return nil, err
	}
	return j, nil
}

func open(file *os.File, path string) (*Journal, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	st, size, err := fold(path, data)
	if err != nil {
		return nil, err
	}
	if st.pod == "" {
		return nil, fmt.Errorf("open %s: %w", path, ErrEmpty)
	}
	if size < int64(len(data)) {
		if err := file.Truncate(size); err != nil {
			return nil, fmt.Errorf("cut torn record off journal: %w", err)
		}
	}
	os.Remove(path + newSuffix) // of a compaction that a crash cut short
	j := &Journal{path: path, state: st, file: file, size: size, tryAt: compactAt}
	// The room of the last owner is there still, unless the cut has given it
	// back and somebody else took it. Not worth failing for: nothing new is
	// begun without room, and a release tries its luck.
	_ = j.promise(j.size + int64(j.owed) + noteReserve)
	return j, nil
}

// Salvage returns the objects that a corrupt journal still shows to be live, for
// a clean-up of what can be known: records that cannot be read are passed over.
// An object whose release was lost is listed too, which does no harm.
func Salvage(path string) ([]plan.Object, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("salvage journal: %w", err)
	}
	s := newState()
	s.pod = "unknown" // the first record may be the bad one
	_ = eachLine(data, func(_ int, _ int64, line []byte) error {
		if r, err := decode(line); err == nil {
			_ = s.apply(r, len(line)+1)
		}
		return nil
	})
	return s.list(""), nil
}

// Pod returns the id of the pod.
func (j *Journal) Pod() string { return j.pod }

// Path returns the file's name.
func (j *Journal) Path() string { return j.path }

// Intend writes an object down; it comes before the object is made. The same
// kind, name and owner again replaces the data and keeps the place in the order.
// It fails with [ErrFull] when there is no room for this record and later for
// the object's release.
func (j *Journal) Intend(obj plan.Object) error {
	data, err := compact(obj.Data)
	if err != nil {
		return fmt.Errorf("intend %s %s: data: %w", obj.Kind, obj.Name, err)
	}
	obj.Data = data
	j.mu.Lock()
	defer j.mu.Unlock()
	if i := j.find(obj); i >= 0 && bytes.Equal(j.objects[i].obj.Data, obj.Data) {
		return nil
	}
	return j.add(&record{Verb: verbIntend, Kind: obj.Kind, Name: obj.Name, Owner: obj.Owner, Data: obj.Data})
}

// Release crosses an object out; it comes after the object is gone. An object
// that is not live is released already.
func (j *Journal) Release(obj plan.Object) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.find(obj) < 0 {
		return nil
	}
	return j.add(&record{Verb: verbRelease, Kind: obj.Kind, Name: obj.Name, Owner: obj.Owner})
}

// Note records v, as JSON, as the state of (kind, id); the latest counts. A nil v
// forgets it. Writing what is there already costs nothing.
func (j *Journal) Note(kind, id string, v any) error {
	r := &record{Verb: verbForget, Kind: plan.ObjectKind(kind), Name: id}
	if v != nil {
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("note %s %s: %w", kind, id, err)
		}
		r.Verb, r.Data = verbNote, data
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if bytes.Equal(j.notes[key{r.Kind, r.Name}].data, r.Data) {
		return nil
	}
	return j.add(r)
}

// ReadNote unmarshals the note of (kind, id) into v and says whether there is
// one.
func (j *Journal) ReadNote(kind, id string, v any) (bool, error) {
	j.mu.Lock()
	n, ok := j.notes[key{plan.ObjectKind(kind), id}]
	j.mu.Unlock()
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(n.data, v); err != nil {
		return true, fmt.Errorf("read note %s %s in %s: %w", kind, id, j.path, err)
	}
	return true, nil
}

// NoteIDs returns the ids that have a note of this kind, sorted.
func (j *Journal) NoteIDs(kind string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var ids []string
	for k := range maps.Keys(j.notes) {
		if string(k.kind) == kind {
			ids = append(ids, k.name)
		}
	}
	slices.Sort(ids)
	return ids
}

// Live returns the owner's objects in the order in which they were intended;
// owner "" stands for all. The data is shared with the journal: read only.
func (j *Journal) Live(owner string) []plan.Object {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.list(owner)
}

func (s *state) list(owner string) []plan.Object {
	var objs []plan.Object
	for _, e := range s.objects {
		if owner == "" || e.obj.Owner == owner {
			objs = append(objs, e.obj)
		}
	}
	return objs
}

// Close lets go of the file and leaves it where it is.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.close()
}

func (j *Journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// Remove ends the journal and deletes its file; it is the last step of removing
// a pod. It refuses while an object is live: nobody would know of it any more.
func (j *Journal) Remove() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.objects) > 0 {
		return fmt.Errorf("remove journal of pod %s: still live: %s", j.pod, describe(j.list("")))
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove journal: %w", err)
	}
	return j.close()
}

// describe lists objects for an error message, the first few by name.
func describe(objs []plan.Object) string {
	const most = 5
	var names []string
	for i, o := range objs {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(objs)-most))
			break
		}
		names = append(names, string(o.Kind)+" "+o.Name)
	}
	return strings.Join(names, ", ")
}

// compact returns data as encode will write it, in memory of its own.
func compact(data json.RawMessage) (json.RawMessage, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
