package journal

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// chunk is how far ahead room is promised, in bytes: two pages of tmpfs.
	chunk = 8 << 10
	page  = 4 << 10
	// noteReserve is kept for the notes of a pod that stops (states, exits) when
	// the file system is full, in bytes.
	noteReserve = 4 << 10
	// compactAt is how many bytes of dead records a journal may carry, or as many
	// as it has live ones if these are more: a rewrite then costs less than the
	// writes that led to it.
	compactAt = 64 << 10
)

// add appends a record and folds it into the state; the lock is held. The state
// changes only when the record is in the file.
func (j *Journal) add(r *record) error {
	if r.Verb != verbPod && (r.Kind == "" || r.Name == "") {
		return fmt.Errorf("%s %q %q: kind and name must not be empty", r.Verb, r.Kind, r.Name)
	}
	line, err := encode(r)
	if err != nil {
		return err
	}
	if err := j.write(r, line); err != nil {
		return fmt.Errorf("write %s %s %s to journal %s: %w", r.Verb, r.Kind, r.Name, j.path, err)
	}
	if err := j.apply(r, len(line)); err != nil {
		return fmt.Errorf("apply %s %s %s: %w", r.Verb, r.Kind, r.Name, err)
	}
	j.tidy()
	return nil
}

// write puts line at the end of the file with one write(2), or leaves the file
// as it was.
func (j *Journal) write(r *record, line []byte) error {
	if j.file == nil {
		return os.ErrClosed
	}
	if j.broken != nil {
		return j.broken
	}
	need := int64(len(line)) + j.kept(r, len(line))
	if err := j.room(need); err != nil && r.Verb != verbRelease {
		return err // a release tries its luck
	}
	crash.before(j.pod, r)
	n, err := j.file.Write(line)
	crash.after(err == nil)
	if err != nil {
		if n > 0 {
			j.cut()
		}
		return asFull(err)
	}
	j.size += int64(n)
	return nil
}

// kept returns how many bytes must still be promised behind r's line of n bytes.
// An intent leaves the whole reserve, its own release included; a note may take
// what is kept for notes; a release takes what was kept for it.
func (j *Journal) kept(r *record, n int) int64 {
	switch r.Verb {
	case verbIntend:
		return int64(j.owed+releaseLen(r, n)) + noteReserve
	case verbRelease:
		return 0
	default:
		return int64(j.owed)
	}
}

// room sees to it that n more bytes can be written. Where the file system has
// none left, dead records make some.
func (j *Journal) room(n int64) error {
	err := j.promise(j.size + n)
	if errors.Is(err, ErrFull) && j.dead() >= page && j.rewrite() == nil {
		err = j.promise(j.size + n)
	}
	return err
}

// promise has the file system set room aside up to an offset, with
// FALLOC_FL_KEEP_SIZE: the pages are ours, the length stays (fallocate(2)).
// Where that is not supported, ENOSPC shows at the write, without a reserve.
func (j *Journal) promise(end int64) error {
	if end <= j.alloc {
		return nil
	}
	var err error
	for _, unit := range []int64{chunk, page} { // the last page is better than none
		upTo := (end + unit - 1) / unit * unit
		err = unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.size, upTo-j.size)
		switch {
		case err == nil:
			j.alloc = upTo
			return nil
		case errors.Is(err, unix.EOPNOTSUPP):
			j.alloc = math.MaxInt64
			return nil
		}
	}
	return asFull(err)
}

// cut takes a half-written record off again. Truncation gives the promised room
// back too, so it is asked for anew.
func (j *Journal) cut() {
	if err := j.file.Truncate(j.size); err != nil {
		j.broken = fmt.Errorf("journal ends in half a record: %w", err)
		return
	}
	j.alloc = j.size
	_ = j.promise(j.size + int64(j.owed) + noteReserve)
}

// asFull marks the errors that mean "no room" with ErrFull.
func asFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
