package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

func create(t testing.TB) *Journal {
	t.Helper()
	j, err := Create(filepath.Join(t.TempDir(), "journal"), "pod1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// reopen closes j and opens it again, as the next daemon would.
func reopen(t testing.TB, j *Journal) *Journal {
	t.Helper()
	must(t, j.Close())
	next, err := Open(j.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	return next
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func object(kind plan.ObjectKind, name, owner string) plan.Object {
	return plan.Object{Kind: kind, Name: name, Owner: owner}
}

func names(objs []plan.Object) string {
	var s []string
	for _, o := range objs {
		s = append(s, o.Name)
	}
	return strings.Join(s, " ")
}

func TestReopenShowsWhatWasWritten(t *testing.T) {
	j := create(t)
	withData := object("cgroup", "/kubepods/pod1/<&>\u2028", "c1")
	withData.Data = json.RawMessage("{ \"a\" : \"<b>\",\n \"c\": 1 }")
	must(t, j.Intend(object("namespace", "net", "")))
	must(t, j.Intend(withData))
	must(t, j.Intend(object("mount", "/gone", "c1")))
	must(t, j.Release(object("mount", "/gone", "c1")))
	must(t, j.Note("container", "c1", map[string]int{"exit": 1}))
	must(t, j.Note("container", "c1", map[string]int{"exit": 3}))
	must(t, j.Note("container", "c0", "x"))
	must(t, j.Note("pod", "gone", 1))
	must(t, j.Note("pod", "gone", nil))

	check := func(j *Journal) {
		t.Helper()
		withData.Data = json.RawMessage(`{"a":"<b>","c":1}`)
		want := []plan.Object{object("namespace", "net", ""), withData}
		if d := cmp.Diff(want, j.Live("")); d != "" {
			t.Error(d)
		}
		if got := names(j.Live("c1")); got != withData.Name {
			t.Errorf("live of c1: %s", got)
		}
		var exit map[string]int
		if ok, err := j.ReadNote("container", "c1", &exit); !ok || err != nil || exit["exit"] != 3 {
			t.Errorf("note = %v, %v, %v; want exit 3", ok, err, exit)
		}
		if ok, _ := j.ReadNote("pod", "gone", &exit); ok {
			t.Error("a forgotten note is there")
		}
		if d := cmp.Diff([]string{"c0", "c1"}, j.NoteIDs("container")); d != "" {
			t.Error(d)
		}
		if j.Pod() != "pod1" {
			t.Errorf("pod %q", j.Pod())
		}
	}
	check(j)
	j = reopen(t, j)
	check(j)
	must(t, j.rewrite())
	check(j)
	check(reopen(t, j))
}

func TestSameIntentAndNoteCostNothing(t *testing.T) {
	j := create(t)
	obj := object("dir", "/d", "")
	must(t, j.Intend(obj))
	must(t, j.Note("pod", "p", 1))
	size := j.size
	must(t, j.Intend(obj))
	must(t, j.Note("pod", "p", 1))
	must(t, j.Note("pod", "q", nil))
	must(t, j.Release(object("dir", "/other", "")))
	if j.size != size {
		t.Errorf("grew from %d to %d bytes", size, j.size)
	}
}

// One image is lent to two containers of a pod: the same name, two objects.
func TestOwnerIsPartOfAnObject(t *testing.T) {
	j := create(t)
	must(t, j.Intend(object("lend", "sha256:1", "c1")))
	must(t, j.Intend(object("lend", "sha256:1", "c2")))
	must(t, j.Release(object("lend", "sha256:1", "c1")))
	want := []plan.Object{object("lend", "sha256:1", "c2")}
	if d := cmp.Diff(want, reopen(t, j).Live("")); d != "" {
		t.Error(d)
	}
}

func TestNewDataKeepsThePlace(t *testing.T) {
	j := create(t)
	for _, n := range []string{"a", "b", "c"} {
		must(t, j.Intend(object("dir", n, "")))
	}
	must(t, j.Intend(plan.Object{Kind: "dir", Name: "a", Data: json.RawMessage(`{"pid":7}`)}))
	j = reopen(t, j)
	if got := names(j.Live("")); got != "a b c" {
		t.Errorf("order %s", got)
	}
	if string(j.Live("")[0].Data) != `{"pid":7}` {
		t.Errorf("data %s", j.Live("")[0].Data)
	}
}

func TestRefused(t *testing.T) {
	j := create(t)
	tests := []struct {
		name string
		do   func() error
		want string
	}{
		{"no kind", func() error { return j.Intend(object("", "x", "")) }, "must not be empty"},
		{"no name", func() error { return j.Intend(object("dir", "", "")) }, "must not be empty"},
		{"not UTF-8", func() error { return j.Intend(object("dir", "/\xff", "")) }, "not valid UTF-8"},
		{"bad data", func() error {
			return j.Intend(plan.Object{Kind: "dir", Name: "x", Data: json.RawMessage("{")})
		}, "data: "},
		{"huge", func() error { return j.Note("pod", "x", strings.Repeat("x", maxRecord)) }, "more than"},
		{"no JSON", func() error { return j.Note("pod", "x", func() {}) }, "note pod x"},
		{"no pod", func() error { _, err := Create(j.Path()+"2", ""); return err }, "no pod id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if len(reopen(t, j).Live("")) != 0 {
		t.Error("something was written")
	}
	if _, err := Create(j.Path(), "pod1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second create: %v", err)
	}
}

func TestUndoGoesBackwardsAndOnPastErrors(t *testing.T) {
	j := create(t)
	for i, n := range []string{"a", "b", "c", "d"} {
		must(t, j.Intend(object("dir", n, fmt.Sprint("c", i%2))))
	}
	var order []string
	bad := errors.New("busy")
	release := func(_ context.Context, o plan.Object) error {
		order = append(order, o.Name)
		if o.Name == "c" {
			return bad
		}
		return nil
	}
	err := j.Undo(t.Context(), "", release)
	if !errors.Is(err, bad) || !strings.Contains(err.Error(), "undo dir c: busy") {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff([]string{"d", "c", "b", "a"}, order); d != "" {
		t.Error(d)
	}
	j = reopen(t, j)
	if got := names(j.Live("")); got != "c" {
		t.Errorf("left: %s", got)
	}
	if err := j.Remove(); err == nil || !strings.Contains(err.Error(), "dir c") {
		t.Errorf("remove with a live object: %v", err)
	}
	bad = nil
	must(t, j.Undo(t.Context(), "c0", release))
	must(t, j.Remove())
	must(t, j.Remove())
	if _, err := Open(j.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open after remove: %v", err)
	}
	if err := j.Intend(object("dir", "x", "")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("intend after remove: %v", err)
	}
}

func TestUndoStopsWithItsContext(t *testing.T) {
	j := create(t)
	for _, n := range []string{"a", "b", "c"} {
		must(t, j.Intend(object("dir", n, "")))
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := j.Undo(ctx, "", func(context.Context, plan.Object) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "dir a, dir b left") {
		t.Errorf("error %v", err)
	}
	if got := names(j.Live("")); got != "a b" {
		t.Errorf("left: %s", got)
	}
}

func TestCompaction(t *testing.T) {
	j := create(t)
	must(t, j.Intend(object("cgroup", "/stays", "")))
	data, _ := json.Marshal(strings.Repeat("x", 1000))
	for i := range 2000 {
		o := plan.Object{Kind: "dir", Name: fmt.Sprint("/", i), Data: data}
		must(t, j.Intend(o))
		must(t, j.Note("exit", "c1", i))
		must(t, j.Release(o))
		if j.size > compactAt+4096 {
			t.Fatalf("%d bytes after %d rounds", j.size, i)
		}
		if j.size-int64(j.live) != j.dead() || j.dead() > compactAt {
			t.Fatalf("%d dead bytes", j.dead())
		}
	}
	if st, err := os.Stat(j.Path()); err != nil || st.Size() != j.size {
		t.Errorf("file has %v bytes, journal thinks %d; %v", st.Size(), j.size, err)
	}
	live, owed := j.live, j.owed
	j = reopen(t, j)
	if got := names(j.Live("")); got != "/stays" {
		t.Errorf("live: %s", got)
	}
	if j.live != live || j.owed != owed {
		t.Errorf("accounts differ after opening: live %d, %d; owed %d, %d", live, j.live, owed, j.owed)
	}
	var n int
	if ok, err := j.ReadNote("exit", "c1", &n); !ok || err != nil || n != 1999 {
		t.Errorf("note %v %v %d", ok, err, n)
	}
}

func TestCrashInCompactionLeavesTheOldFile(t *testing.T) {
	j := create(t)
	must(t, j.Intend(object("dir", "/a", "")))
	must(t, os.WriteFile(j.Path()+newSuffix, []byte("half a"), 0o600))
	j = reopen(t, j)
	if got := names(j.Live("")); got != "/a" {
		t.Errorf("live: %s", got)
	}
	if _, err := os.Lstat(j.Path() + newSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rest of the compaction: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	j := create(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			owner := fmt.Sprint("c", w)
			for i := range 200 {
				o := object("dir", fmt.Sprintf("/%d/%d", w, i), owner)
				if err := errors.Join(j.Intend(o), j.Note("state", owner, i)); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if err := j.Release(o); err != nil {
						t.Error(err)
					}
				}
				j.Live(owner)
				j.NoteIDs("state")
			}
			if w%2 == 0 {
				if err := j.Undo(t.Context(), owner, func(context.Context, plan.Object) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want := j.Live("")
	j = reopen(t, j)
	if d := cmp.Diff(want, j.Live("")); d != "" {
		t.Error(d)
	}
	if len(want) != 400 || len(j.NoteIDs("state")) != 8 {
		t.Errorf("%d objects, %d notes", len(want), len(j.NoteIDs("state")))
	}
}

// On tmpfs an append must stay under 10 µs: a start has about ten. Run with
// TMPDIR=/dev/shm.
func BenchmarkAppend(b *testing.B) {
	j := create(b)
	o := plan.Object{Kind: "cgroup", Name: "/kubepods/burstable/pod1234/c5678", Owner: "c5678", Data: json.RawMessage(`{"pid":1}`)}
	for b.Loop() {
		must(b, j.Intend(o))
		must(b, j.Release(o))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*b.N), "ns/append")
}

func BenchmarkCreateRemove(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		j, err := Create(filepath.Join(dir, "journal"), "pod1")
		must(b, err)
		must(b, j.Remove())
	}
}
