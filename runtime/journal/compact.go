package journal

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
)

// newSuffix names the file in which a compacted journal is written.
const newSuffix = ".new"

// dead returns the bytes of records that no longer count.
func (j *Journal) dead() int64 { return j.size - int64(j.live) }

// tidy writes the file anew when it has grown old. A failure costs only room:
// the record that brought us here is written, so it is tried again later.
func (j *Journal) tidy() {
	if j.dead() <= max(j.tryAt, int64(j.live)) {
		return
	}
	if err := j.rewrite(); err != nil {
		j.tryAt = j.dead() + compactAt
	}
}

// rewrite replaces the file by one that holds only what counts. The rename is
// the moment of truth: a crash before it leaves the old file, and a rest that
// Open deletes.
func (j *Journal) rewrite() error {
	data, err := j.encode()
	if err != nil {
		return err
	}
	st, _, err := fold(j.path, data)
	if err != nil {
		return err
	}
	name := j.path + newSuffix
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return asFull(err)
	}
	next := &Journal{path: name, state: st, file: file}
	if err := next.fill(data); err != nil {
		file.Close()
		os.Remove(name)
		return err
	}
	if err := os.Rename(name, j.path); err != nil {
		file.Close()
		os.Remove(name)
		return err
	}
	j.file.Close()
	j.state, j.file, j.size, j.alloc = next.state, next.file, next.size, next.alloc
	j.tryAt = compactAt
	return nil
}

// fill writes a whole journal into an empty file, with its reserve.
func (j *Journal) fill(data []byte) error {
	if err := j.promise(int64(len(data)) + int64(j.owed) + noteReserve); err != nil {
		return err
	}
	n, err := j.file.Write(data)
	j.size = int64(n)
	return asFull(err)
}

// encode returns the lines of a journal that has this state and no past.
func (s *state) encode() ([]byte, error) {
	records := []*record{{Verb: verbPod, Version: version, Name: s.pod}}
	for _, e := range s.objects {
		o := e.obj
		records = append(records, &record{Verb: verbIntend, Kind: o.Kind, Name: o.Name, Owner: o.Owner, Data: o.Data})
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.notes), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name))
	}) {
		records = append(records, &record{Verb: verbNote, Kind: k.kind, Name: k.name, Data: s.notes[k].data})
	}
	var b bytes.Buffer
	for _, r := range records {
		line, err := encode(r)
		if err != nil {
			return nil, fmt.Errorf("rewrite journal: %w", err)
		}
		b.Write(line)
	}
	return b.Bytes(), nil
}
