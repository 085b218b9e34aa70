package sandbox

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestPanicEndsTheCallOnly: the work of joined calls runs in a goroutine of its own, where a panic would end the daemon.
func TestPanicEndsTheCallOnly(t *testing.T) {
	m := &Manager{log: slog.New(slog.NewTextHandler(io.Discard, nil)), joining: map[string]*joined{}}
	for range 2 { // the second is not one who joins the first
		_, err := m.join(t.Context(), "call", func(context.Context) (string, error) { panic("a bug") })
		if err == nil || !strings.Contains(err.Error(), "a bug") {
			t.Errorf("error %v, want one that says what the panic did", err)
		}
	}
	if id, err := m.join(t.Context(), "call", func(context.Context) (string, error) { return "id", nil }); id != "id" || err != nil {
		t.Errorf("the next call gives %q, %v", id, err)
	}
	if len(m.joining) != 0 {
		t.Errorf("%d calls are still in progress", len(m.joining))
	}
}

// TestCreationKey: a container of the same name that is another one is no retry of a creation in progress.
func TestCreationKey(t *testing.T) {
	config := func(mod func(*criapi.ContainerConfig)) *criapi.ContainerConfig {
		c := &criapi.ContainerConfig{Metadata: &criapi.ContainerMetadata{Name: "a"}, Labels: map[string]string{"b": "1", "a": "2", "c": "3"}}
		mod(c)
		return c
	}
	key := func(pod string, c *criapi.ContainerConfig) string {
		k, err := creationKey(pod, c)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key("pod", config(func(*criapi.ContainerConfig) {}))
	for range 20 { // of maps in any order
		if again := key("pod", config(func(*criapi.ContainerConfig) {})); again != first {
			t.Fatalf("the same request has the keys %s and %s", first, again)
		}
	}
	others := map[string]bool{
		key("other", config(func(*criapi.ContainerConfig) {})):                               true,
		key("pod", config(func(c *criapi.ContainerConfig) { c.Metadata.Name = "b" })):        true,
		key("pod", config(func(c *criapi.ContainerConfig) { c.Metadata.Attempt = 1 })):       true,
		key("pod", config(func(c *criapi.ContainerConfig) { c.Command = []string{"true"} })): true,
		key("pod", config(func(c *criapi.ContainerConfig) { c.Labels["a"] = "1" })):          true,
	}
	if others[first] || len(others) != 5 {
		t.Errorf("different requests have the same key: %v", others)
	}
}

func TestRestoreValues(t *testing.T) {
	env := []string{"A=\ufffd", "B=plain", "C=\ufffd", "D", "A2=x"}
	restoreValues(env, []*criapi.KeyValue{
		{Key: "A", Value: []byte("old")}, {Key: "A", Value: []byte("\xff=")}, {Key: "B", Value: []byte("plain")}, {Key: "C", Value: []byte("\ufffd")}, {Key: "X", Value: []byte("\xfe")},
	})
	if d := cmp.Diff([]string{"A=\xff=", "B=plain", "C=\ufffd", "D", "A2=x"}, env); d != "" {
		t.Error(d)
	}
}
