package compile

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

func TestSplitLayers(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   string
		want []string
	}{
		{"one", "/a", []string{"/a"}},
		{"two", "/a:/b", []string{"/a", "/b"}},
		{"a colon in a name", `/a\:b:/c`, []string{"/a:b", "/c"}},
		{"a backslash in a name", `/a\\b:/c`, []string{`/a\b`, "/c"}},
		{"a backslash at the end", `/a\`, []string{`/a\`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := splitLayers(tt.in); !slices.Equal(got, tt.want) {
				t.Errorf("splitLayers(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// TestOverlayMount: who makes an overlay of the specification, and how.
func TestOverlayMount(t *testing.T) {
	long := "/" + strings.Repeat("x", maxValue)
	for _, tt := range []struct {
		name    string
		options []string
		facts   func(*Options)
		kind    plan.Kind
		way     uint64
	}{
		{"layers only", []string{"lowerdir=/a:/b"}, nil, plan.RootfsOverlay, plan.OverlayLayerFDs},
		{"long names without layer descriptors", []string{"lowerdir=" + long + ":/b"}, func(o *Options) { o.Facts.OverlayLayerFD = false }, plan.RootfsOverlay, plan.OverlayMount},
		{"short names without layer descriptors", []string{"lowerdir=/a:/b"}, func(o *Options) { o.Facts.OverlayLayerFD = false }, plan.RootfsOverlay, plan.OverlayLowerPlus},
		{"with an upper directory", []string{"lowerdir=/a:/b", "upperdir=/u", "workdir=/w"}, nil, plan.MountFS, 0},
		{"without layers", nil, nil, plan.MountFS, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, o := sampleSpec(t, "command-default"), sampleOptions()
			if tt.facts != nil {
				tt.facts(&o)
			}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "overlay", Source: "overlay", Options: tt.options})
			p, err := Container(s, o)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(p.Ops, func(op plan.Op) bool {
				return op.Kind == plan.RootfsOverlay && slices.Contains(op.List[0], "/b") || op.Kind == plan.MountFS && op.Str[1] == "/vol"
			})
			if i < 0 || p.Ops[i].Kind != tt.kind || tt.kind == plan.RootfsOverlay && p.Ops[i].Num[0] != tt.way {
				t.Errorf("not made by %s in way %d:\n%s", tt.kind, tt.way, p)
			}
		})
	}
}
